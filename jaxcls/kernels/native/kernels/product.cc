// Products of matrices in bfloat16 by oneDNN, of many pairs at once, as an XLA FFI handler.

#include <array>
#include <cstdint>
#include <memory>
#include <utility>

#include "executor.h"
#include "handler.h"
#include "oneapi/dnnl/dnnl.hpp"
#include "primitive.h"
#include "xla/ffi/api/ffi.h"

namespace jaxcls {
namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Role = Operand::Role;

// (pairs, rows, inner) by (pairs, inner, columns) to (pairs, rows, columns). A factor may lie in memory transposed. What
// is given in float32 is rounded on its way in.
struct Product {
  Shape a, b, result;
  bool a_transposed, b_transposed;

  // All that a primitive depends on.
  Executor::Key key() const {
    Executor::Key key{kProduct, a_transposed, b_transposed};
    for (const Shape* shape : {&a, &b, &result}) shape->append_to(key);
    return key;
  }
};

// From so many rows on it pays to copy the second factor into the layout that oneDNN is fastest with. A copy is one more
// call of all threads, which have to wake up: 40 us here, of the 150 that a product of 128 x 784 x 512 takes.
constexpr int64_t kManyRows = 1024;

// One pair is a product of two dimensions: only those have layouts of their own.
memory::desc matrices(const Shape& shape, bool transposed) {
  const int64_t pairs = shape.sizes[0];
  int64_t rows = shape.sizes[1], columns = shape.sizes[2], row = columns, column = 1;
  const int64_t matrix = rows * columns;
  if (transposed) {
    std::swap(rows, columns);
    std::swap(row, column);
  }
  if (pairs == 1) return {{rows, columns}, shape.type, {row, column}};
  return {{pairs, rows, columns}, shape.type, {matrix, row, column}};
}

std::unique_ptr<Primitive> make(const Product& of) {
  const memory::desc a = matrices(of.a, of.a_transposed), b = matrices(of.b, of.b_transposed);
  const memory::desc result = matrices(of.result, false);
  const auto rounded = memory::data_type::bf16;
  const memory::desc a_rounded(a.get_dims(), rounded, a.get_strides()), b_rounded(b.get_dims(), rounded, b.get_strides());
  const memory::desc b_in_any_layout(b.get_dims(), rounded, memory::format_tag::any);
  const bool many = a.get_ndims() == 2 && a.get_dims()[0] >= kManyRows;
  const dnnl::matmul::primitive_desc description(cpu(), a_rounded, many ? b_in_any_layout : b_rounded, result,
                                                 attributes());
  return std::make_unique<Primitive>(
      description, dnnl::matmul(description),
      std::array{Operand(Role::kSource, DNNL_ARG_SRC, a, description.src_desc()),
                 Operand(Role::kSource, DNNL_ARG_WEIGHTS, b, description.weights_desc()),
                 Operand(Role::kResult, DNNL_ARG_DST, result, description.dst_desc())});
}

ffi::Error handle(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> result,
                  bool a_transposed, bool b_transposed) {
  const Product product{Shape(a), Shape(b), Shape(*result), a_transposed, b_transposed};
  return run_primitive(pool, product.key(), {a.untyped_data(), b.untyped_data(), result->untyped_data()},
                       [&] { return make(product); });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcls_product, handle,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("a_transposed")
                                  .Attr<bool>("b_transposed"));

}  // namespace jaxcls
