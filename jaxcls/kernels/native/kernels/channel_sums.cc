// Two sums per channel in one pass, of a - shift[0] and of (a - shift[0]) * (b - shift[1]), which batch normalization and
// its gradient need.
// Images are (rows, C) here, one row per pixel; those that are masked are left out.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "executor.h"
#include "xla/ffi/api/ffi.h"

namespace jaxcls {
namespace {

namespace ffi = xla::ffi;

// Blocks of this many rows are summed in float, and their sums in double: a plain float sum of 100,000 equal numbers
// has a relative error of 1e-4.
constexpr int64_t kBlockRows = 256;

inline float as_float(float number) { return number; }
inline float as_float(uint16_t bfloat16) {
  const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

// A version for each instruction set, chosen when the library is loaded, since machines may share the cache folder.
#ifdef __x86_64__
#define JAXCLS_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define JAXCLS_CLONES
#endif

#define JAXCLS_ADD_BLOCK(Number)                                                                                     \
  JAXCLS_CLONES void add_block(const Number* __restrict a, const Number* __restrict b, const float* __restrict shift,\
                               int64_t rows, int64_t channels, float* __restrict plain, float* __restrict product) { \
    for (int64_t row = 0; row < rows; ++row, a += channels, b += channels) {                                         \
      for (int64_t c = 0; c < channels; ++c) {                                                                       \
        const float number = as_float(a[c]) - shift[c];                                                              \
        plain[c] += number;                                                                                          \
        product[c] += number * (as_float(b[c]) - shift[channels + c]);                                               \
      }                                                                                                              \
    }                                                                                                                \
  }
JAXCLS_ADD_BLOCK(float)
JAXCLS_ADD_BLOCK(uint16_t)

// Sums the rows from start to end: first the plain sums of all channels, then the sums of products.
template <class Number>
std::vector<double> sum_rows(const Number* a, const Number* b, const float* shift, const bool* mask, int64_t pixels,
                             int64_t start, int64_t end, int64_t channels) {
  std::vector<double> total(2 * channels);
  std::vector<float> block_sums(2 * channels);
  for (int64_t block = start; block < end; block += kBlockRows) {
    std::fill(block_sums.begin(), block_sums.end(), 0.0f);
    const int64_t block_end = std::min(block + kBlockRows, end);
    for (int64_t row = block; row < block_end;) {
      const int64_t image = row / pixels;
      const int64_t next = std::min((image + 1) * pixels, block_end);
      if (mask[image]) {
        add_block(a + row * channels, b + row * channels, shift, next - row, channels, block_sums.data(),
                  block_sums.data() + channels);
      }
      row = next;
    }
    for (int64_t c = 0; c < 2 * channels; ++c) total[c] += block_sums[c];
  }
  return total;
}

template <class Number>
void sum_up(ffi::ThreadPool& pool, const void* a, const void* b, const float* shift, const bool* mask, int64_t pixels,
            int64_t rows, int64_t channels, float* sums) {
  std::vector<std::vector<double>> partial(Executor::get().threads());
  Executor::get().in_parallel(pool, [&](int thread, int threads) {
    // Each thread sums whole blocks.
    const int64_t share = (rows / threads + kBlockRows - 1) / kBlockRows * kBlockRows;
    const int64_t start = std::min(rows, thread * share);
    const int64_t end = thread == threads - 1 ? rows : std::min(rows, start + share);
    partial[thread] = sum_rows(static_cast<const Number*>(a), static_cast<const Number*>(b), shift, mask, pixels, start,
                               end, channels);
  });
  // In the order of the threads, so that results are reproducible.
  for (int64_t c = 0; c < 2 * channels; ++c) {
    double total = 0;
    for (const std::vector<double>& thread_sums : partial) total += thread_sums[c];
    sums[c] = static_cast<float>(total);
  }
}

ffi::Error handle_channel_sums(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Buffer<ffi::F32> shift,
                  ffi::Buffer<ffi::PRED> mask, ffi::Result<ffi::Buffer<ffi::F32>> sums) {
  const int64_t channels = a.dimensions().back();
  const int64_t rows = static_cast<int64_t>(a.element_count()) / channels;
  const auto sum = a.element_type() == ffi::DataType::BF16 ? sum_up<uint16_t> : sum_up<float>;
  const int64_t pixels = rows / static_cast<int64_t>(mask.element_count());
  sum(pool, a.untyped_data(), b.untyped_data(), shift.typed_data(), mask.typed_data(), pixels, rows, channels,
      sums->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcls_channel_sums, handle_channel_sums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace jaxcls
