// The library, and the functions that Python calls by ctypes.

#include <cstddef>

#include "executor.h"
// One unit: most of the compiler's time goes into the headers of XLA and oneDNN, which it then reads once.
#include "channel_sums.cc"
#include "convolution.cc"
#include "product.cc"
#include "oneapi/dnnl/dnnl.hpp"

namespace jaxcls {

extern "C" int jaxcls_threads() { return Executor::get().threads(); }
extern "C" int jaxcls_bfloat16() { return dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core; }
extern "C" int jaxcls_bfloat16_products() { return dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core_bf16; }
extern "C" size_t jaxcls_primitives() { return Executor::get().primitives(); }
extern "C" size_t jaxcls_workspace_bytes() { return Executor::get().workspace_bytes(); }

}  // namespace jaxcls
