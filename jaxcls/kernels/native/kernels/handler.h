// Shared code of the handlers that run oneDNN primitives.

#ifndef JAXCLS_NATIVE_HANDLER_H_
#define JAXCLS_NATIVE_HANDLER_H_

#include <array>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "executor.h"
#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace jaxcls {

// The first element of a key: what the primitive computes.
enum Operator : int64_t { kConvolution, kProduct };

// The shape and type of a buffer.
struct Shape {
  explicit Shape(const xla::ffi::AnyBuffer& buffer)
      : sizes(buffer.dimensions().begin(), buffer.dimensions().end()),
        type(buffer.element_type() == xla::ffi::DataType::BF16 ? dnnl::memory::data_type::bf16
                                                               : dnnl::memory::data_type::f32) {}

  void append_to(Executor::Key& key) const {
    key.push_back(static_cast<int64_t>(type));
    key.insert(key.end(), sizes.begin(), sizes.end());
  }

  std::vector<int64_t> sizes;
  dnnl::memory::data_type type;
};

inline dnnl::primitive_attr attributes() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

// Runs the primitive of a key, and returns exceptions as errors, since XLA has no exceptions.
template <class Make>
xla::ffi::Error run_primitive(const xla::ffi::ThreadPool& pool, const Executor::Key& key,
                              const std::array<void*, 3>& buffers, Make make) {
  try {
    Executor::get().run(pool, key, buffers, make);
  } catch (const dnnl::error& error) {
    return xla::ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  } catch (const std::bad_alloc&) {
    return xla::ffi::Error(xla::ffi::ErrorCode::kResourceExhausted, "no memory for the workspace of a native kernel");
  }
  return xla::ffi::Error::Success();
}

}  // namespace jaxcls

#endif  // JAXCLS_NATIVE_HANDLER_H_
