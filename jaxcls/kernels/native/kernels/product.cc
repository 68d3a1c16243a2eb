// Batched matrix products in bfloat16 by oneDNN, as an XLA FFI handler.

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

// (pairs, rows, inner) times (pairs, inner, columns) is (pairs, rows, columns). The factors may be stored transposed;
// factors in float32 are rounded.
struct Product {
  Shape a, b, result;
  bool a_transposed, b_transposed;

  // Everything that the primitive depends on.
  Executor::Key key() const {
    Executor::Key key{kProduct, a_transposed, b_transposed};
    for (const Shape* shape : {&a, &b, &result}) shape->append_to(key);
    return key;
  }
};

// From this many rows it pays to copy the second factor into the layout that oneDNN chooses. A copy is one more
// parallel section, for which threads have to wake up: 40 of the 150 us of a product of 128 x 784 x 512.
constexpr int64_t kManyRows = 1024;

// A single pair has two dimensions, since oneDNN chooses layouts only for these.
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

std::unique_ptr<Primitive> make(const Product& product) {
  const memory::desc a = matrices(product.a, product.a_transposed), b = matrices(product.b, product.b_transposed);
  const memory::desc result = matrices(product.result, false);
  const auto rounded = memory::data_type::bf16;
  const memory::desc a_rounded(a.get_dims(), rounded, a.get_strides());
  const memory::desc b_rounded(b.get_dims(), rounded, b.get_strides());
  const memory::desc b_any_layout(b.get_dims(), rounded, memory::format_tag::any);
  const bool many = a.get_ndims() == 2 && a.get_dims()[0] >= kManyRows;
  const dnnl::matmul::primitive_desc description(cpu(), a_rounded, many ? b_any_layout : b_rounded, result,
                                                 attributes());
  return std::make_unique<Primitive>(
      description, dnnl::matmul(description),
      std::array{Operand(Role::kSource, DNNL_ARG_SRC, a, description.src_desc()),
                 Operand(Role::kSource, DNNL_ARG_WEIGHTS, b, description.weights_desc()),
                 Operand(Role::kResult, DNNL_ARG_DST, result, description.dst_desc())});
}

ffi::Error handle_product(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> result,
                  bool a_transposed, bool b_transposed) {
  const Product product{Shape(a), Shape(b), Shape(*result), a_transposed, b_transposed};
  return run_primitive(pool, product.key(), {a.untyped_data(), b.untyped_data(), result->untyped_data()},
                       [&] { return make(product); });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcls_product, handle_product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("a_transposed")
                                  .Attr<bool>("b_transposed"));

}  // namespace jaxcls
