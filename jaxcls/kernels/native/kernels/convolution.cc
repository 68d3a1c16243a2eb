// The three operations of a two-dimensional convolution by oneDNN, as XLA FFI handlers.
//
// Images are NHWC, kernels HWIO, as XLA has them. oneDNN names axes in an order of its own (NCHW, OIHW), whatever the
// layout in memory; here strides say what that is.

#include <array>
#include <cstdint>
#include <memory>

#include "executor.h"
#include "handler.h"
#include "oneapi/dnnl/dnnl.hpp"
#include "primitive.h"
#include "xla/ffi/api/ffi.h"

namespace jaxcls {
namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Integers = ffi::Span<const int64_t>;
using Role = Operand::Role;

enum class Operation : int64_t { kForward, kInputGradient, kKernelGradient };

// How a kernel moves over images; each of the first four has an element for height and one for width.
struct Movement {
  Integers strides, dilation, before, after;
  int64_t groups;
};

// A convolution takes x and the kernel to y; of these three an operation computes one from the two others.
struct Convolution {
  Operation operation;
  Shape x, kernel, y;
  Movement movement;

  // All that a primitive depends on.
  Executor::Key key() const {
    Executor::Key key{kConvolution, static_cast<int64_t>(operation), movement.groups};
    for (const Shape* shape : {&x, &kernel, &y}) shape->append_to(key);
    for (Integers pair : {movement.strides, movement.dilation, movement.before, movement.after}) {
      key.insert(key.end(), pair.begin(), pair.end());
    }
    return key;
  }
};

memory::dims dims(Integers integers) { return {integers.begin(), integers.end()}; }

memory::desc images(const Shape& shape) {
  const auto& nhwc = shape.sizes;
  return {{nhwc[0], nhwc[3], nhwc[1], nhwc[2]}, shape.type, memory::format_tag::nhwc};
}

// (O, I, H, W), or (groups, O, I, H, W) with the channels of one group: XLA has the groups side by side in O.
memory::dims kernel_dims(const Convolution& of) {
  const auto& hwio = of.kernel.sizes;
  const int64_t groups = of.movement.groups;
  if (groups == 1) return {hwio[3], hwio[2], hwio[0], hwio[1]};
  return {groups, hwio[3] / groups, hwio[2], hwio[0], hwio[1]};
}

memory::desc kernel_as_given(const Convolution& of) {
  const auto& hwio = of.kernel.sizes;
  const int64_t i = hwio[3], w = i * hwio[2], h = w * hwio[1];
  memory::dims strides{1, i, h, w};
  if (of.movement.groups > 1) strides.insert(strides.begin(), hwio[3] / of.movement.groups);
  return {kernel_dims(of), of.kernel.type, strides};
}

// In whatever layout oneDNN is fastest with.
memory::desc kernel_as_wanted(const Convolution& of) {
  return {kernel_dims(of), of.kernel.type, memory::format_tag::any};
}

// oneDNN counts dilation from 0.
memory::dims dilation(const Convolution& of) {
  return {of.movement.dilation[0] - 1, of.movement.dilation[1] - 1};
}

dnnl::convolution_forward::primitive_desc forward(const Convolution& of) {
  return {cpu(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct,
          images(of.x), kernel_as_wanted(of), images(of.y),
          dims(of.movement.strides), dilation(of), dims(of.movement.before), dims(of.movement.after), attributes()};
}

// A gradient is described with a forward convolution as a hint, in which all types are those of the sources.
dnnl::convolution_forward::primitive_desc hint(Convolution of) {
  const auto type = of.operation == Operation::kInputGradient ? of.y.type : of.x.type;
  of.x.type = of.kernel.type = of.y.type = type;
  return forward(of);
}

std::unique_ptr<Primitive> make_forward(const Convolution& of) {
  const auto description = forward(of);
  return std::make_unique<Primitive>(
      description, dnnl::convolution_forward(description),
      std::array{Operand(Role::kSource, DNNL_ARG_SRC, images(of.x), description.src_desc()),
                 Operand(Role::kSource, DNNL_ARG_WEIGHTS, kernel_as_given(of), description.weights_desc()),
                 Operand(Role::kResult, DNNL_ARG_DST, images(of.y), description.dst_desc())});
}

std::unique_ptr<Primitive> make_input_gradient(const Convolution& of) {
  const dnnl::convolution_backward_data::primitive_desc description(
      cpu(), dnnl::algorithm::convolution_direct, images(of.x), kernel_as_wanted(of), images(of.y),
      dims(of.movement.strides), dilation(of), dims(of.movement.before), dims(of.movement.after), hint(of),
      attributes());
  return std::make_unique<Primitive>(
      description, dnnl::convolution_backward_data(description),
      std::array{Operand(Role::kSource, DNNL_ARG_DIFF_DST, images(of.y), description.diff_dst_desc()),
                 Operand(Role::kSource, DNNL_ARG_WEIGHTS, kernel_as_given(of), description.weights_desc()),
                 Operand(Role::kResult, DNNL_ARG_DIFF_SRC, images(of.x), description.diff_src_desc())});
}

std::unique_ptr<Primitive> make_kernel_gradient(const Convolution& of) {
  const dnnl::convolution_backward_weights::primitive_desc description(
      cpu(), dnnl::algorithm::convolution_direct, images(of.x), kernel_as_wanted(of), images(of.y),
      dims(of.movement.strides), dilation(of), dims(of.movement.before), dims(of.movement.after), hint(of),
      attributes());
  return std::make_unique<Primitive>(
      description, dnnl::convolution_backward_weights(description),
      std::array{Operand(Role::kSource, DNNL_ARG_SRC, images(of.x), description.src_desc()),
                 Operand(Role::kSource, DNNL_ARG_DIFF_DST, images(of.y), description.diff_dst_desc()),
                 Operand(Role::kResult, DNNL_ARG_DIFF_WEIGHTS, kernel_as_given(of), description.diff_weights_desc())});
}

std::unique_ptr<Primitive> make(const Convolution& of) {
  switch (of.operation) {
    case Operation::kForward: return make_forward(of);
    case Operation::kInputGradient: return make_input_gradient(of);
    case Operation::kKernelGradient: return make_kernel_gradient(of);
  }
  return nullptr;
}

ffi::Error run(const ffi::ThreadPool& pool, const Convolution& of, const std::array<void*, 3>& buffers) {
  return run_primitive(pool, of.key(), buffers, [&] { return make(of); });
}

template <Operation kOperation>
ffi::Error handle(ffi::ThreadPool pool, ffi::AnyBuffer first, ffi::AnyBuffer second,
                  ffi::Result<ffi::AnyBuffer> result, Integers strides, Integers dilation, Integers before,
                  Integers after, int64_t groups) {
  const Shape a(first), b(second), c(*result);
  const Movement movement{strides, dilation, before, after, groups};
  const std::array<void*, 3> buffers{first.untyped_data(), second.untyped_data(), result->untyped_data()};
  switch (kOperation) {
    case Operation::kForward: return run(pool, {kOperation, a, b, c, movement}, buffers);         // x, kernel -> y
    case Operation::kInputGradient: return run(pool, {kOperation, c, b, a, movement}, buffers);   // y, kernel -> x
    case Operation::kKernelGradient: return run(pool, {kOperation, a, c, b, movement}, buffers);  // x, y -> kernel
  }
}

auto binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Ret<ffi::AnyBuffer>()
      .Attr<Integers>("strides")
      .Attr<Integers>("dilation")
      .Attr<Integers>("before")
      .Attr<Integers>("after")
      .Attr<int64_t>("groups");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcls_convolution, handle<Operation::kForward>, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcls_convolution_input_gradient, handle<Operation::kInputGradient>, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcls_convolution_kernel_gradient, handle<Operation::kKernelGradient>, binding());

}  // namespace jaxcls
