// The three operations of a two-dimensional convolution by oneDNN, as XLA FFI handlers.
//
// Images are NHWC and kernels HWIO, as in XLA. oneDNN lists dimensions in the order NCHW and OIHW, whatever the memory
// layout is; strides describe the layout.

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

// The parameters of a convolution; each of the first four has one element for height and one for width.
struct Geometry {
  Integers strides, dilation, before, after;
  int64_t groups;
};

// y is the convolution of x with the kernel; each operation computes one of these three from the other two.
struct Convolution {
  Operation operation;
  Shape x, kernel, y;
  Geometry geometry;

  // Everything that the primitive depends on.
  Executor::Key key() const {
    Executor::Key key{kConvolution, static_cast<int64_t>(operation), geometry.groups};
    for (const Shape* shape : {&x, &kernel, &y}) shape->append_to(key);
    for (Integers pair : {geometry.strides, geometry.dilation, geometry.before, geometry.after}) {
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

// (O, I, H, W), or (groups, O, I, H, W) with the channels of one group; in XLA the groups are consecutive in O.
memory::dims kernel_dims(const Convolution& conv) {
  const auto& hwio = conv.kernel.sizes;
  const int64_t groups = conv.geometry.groups;
  if (groups == 1) return {hwio[3], hwio[2], hwio[0], hwio[1]};
  return {groups, hwio[3] / groups, hwio[2], hwio[0], hwio[1]};
}

memory::desc xla_kernel(const Convolution& conv) {
  const auto& hwio = conv.kernel.sizes;
  const int64_t i = hwio[3], w = i * hwio[2], h = w * hwio[1];
  memory::dims strides{1, i, h, w};
  if (conv.geometry.groups > 1) strides.insert(strides.begin(), hwio[3] / conv.geometry.groups);
  return {kernel_dims(conv), conv.kernel.type, strides};
}

// In the layout that oneDNN chooses.
memory::desc any_kernel(const Convolution& conv) {
  return {kernel_dims(conv), conv.kernel.type, memory::format_tag::any};
}

// In oneDNN a dilation of 0 is none.
memory::dims dilation(const Convolution& conv) {
  return {conv.geometry.dilation[0] - 1, conv.geometry.dilation[1] - 1};
}

dnnl::convolution_forward::primitive_desc forward(const Convolution& conv) {
  return {cpu(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct,
          images(conv.x), any_kernel(conv), images(conv.y),
          dims(conv.geometry.strides), dilation(conv), dims(conv.geometry.before), dims(conv.geometry.after),
          attributes()};
}

// oneDNN needs a forward convolution as a hint for gradients; all of its types are that of the sources.
dnnl::convolution_forward::primitive_desc hint(Convolution conv) {
  const auto type = conv.operation == Operation::kInputGradient ? conv.y.type : conv.x.type;
  conv.x.type = conv.kernel.type = conv.y.type = type;
  return forward(conv);
}

std::unique_ptr<Primitive> make_forward(const Convolution& conv) {
  const auto description = forward(conv);
  return std::make_unique<Primitive>(
      description, dnnl::convolution_forward(description),
      std::array{Operand(Role::kSource, DNNL_ARG_SRC, images(conv.x), description.src_desc()),
                 Operand(Role::kSource, DNNL_ARG_WEIGHTS, xla_kernel(conv), description.weights_desc()),
                 Operand(Role::kResult, DNNL_ARG_DST, images(conv.y), description.dst_desc())});
}

std::unique_ptr<Primitive> make_input_gradient(const Convolution& conv) {
  const dnnl::convolution_backward_data::primitive_desc description(
      cpu(), dnnl::algorithm::convolution_direct, images(conv.x), any_kernel(conv), images(conv.y),
      dims(conv.geometry.strides), dilation(conv), dims(conv.geometry.before), dims(conv.geometry.after), hint(conv),
      attributes());
  return std::make_unique<Primitive>(
      description, dnnl::convolution_backward_data(description),
      std::array{Operand(Role::kSource, DNNL_ARG_DIFF_DST, images(conv.y), description.diff_dst_desc()),
                 Operand(Role::kSource, DNNL_ARG_WEIGHTS, xla_kernel(conv), description.weights_desc()),
                 Operand(Role::kResult, DNNL_ARG_DIFF_SRC, images(conv.x), description.diff_src_desc())});
}

std::unique_ptr<Primitive> make_kernel_gradient(const Convolution& conv) {
  const dnnl::convolution_backward_weights::primitive_desc description(
      cpu(), dnnl::algorithm::convolution_direct, images(conv.x), any_kernel(conv), images(conv.y),
      dims(conv.geometry.strides), dilation(conv), dims(conv.geometry.before), dims(conv.geometry.after), hint(conv),
      attributes());
  return std::make_unique<Primitive>(
      description, dnnl::convolution_backward_weights(description),
      std::array{Operand(Role::kSource, DNNL_ARG_SRC, images(conv.x), description.src_desc()),
                 Operand(Role::kSource, DNNL_ARG_DIFF_DST, images(conv.y), description.diff_dst_desc()),
                 Operand(Role::kResult, DNNL_ARG_DIFF_WEIGHTS, xla_kernel(conv), description.diff_weights_desc())});
}

std::unique_ptr<Primitive> make(const Convolution& conv) {
  switch (conv.operation) {
    case Operation::kForward: return make_forward(conv);
    case Operation::kInputGradient: return make_input_gradient(conv);
    case Operation::kKernelGradient: return make_kernel_gradient(conv);
  }
  return nullptr;
}

ffi::Error run(const ffi::ThreadPool& pool, const Convolution& conv, const std::array<void*, 3>& buffers) {
  return run_primitive(pool, conv.key(), buffers, [&] { return make(conv); });
}

template <Operation kOperation>
ffi::Error handle_conv(ffi::ThreadPool pool, ffi::AnyBuffer first, ffi::AnyBuffer second,
                  ffi::Result<ffi::AnyBuffer> result, Integers strides, Integers dilation, Integers before,
                  Integers after, int64_t groups) {
  const Shape a(first), b(second), c(*result);
  const Geometry geometry{strides, dilation, before, after, groups};
  const std::array<void*, 3> buffers{first.untyped_data(), second.untyped_data(), result->untyped_data()};
  switch (kOperation) {
    case Operation::kForward: return run(pool, {kOperation, a, b, c, geometry}, buffers);         // x, kernel -> y
    case Operation::kInputGradient: return run(pool, {kOperation, c, b, a, geometry}, buffers);   // y, kernel -> x
    case Operation::kKernelGradient: return run(pool, {kOperation, a, c, b, geometry}, buffers);  // x, y -> kernel
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcls_convolution, handle_conv<Operation::kForward>, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcls_convolution_input_gradient, handle_conv<Operation::kInputGradient>, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcls_convolution_kernel_gradient, handle_conv<Operation::kKernelGradient>, binding());

}  // namespace jaxcls
