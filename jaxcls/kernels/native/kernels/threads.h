// The threads that a call runs on: XLA's own for what is written here, and for oneDNN by what that is built for.

#ifndef JAXCLS_NATIVE_THREADS_H_
#define JAXCLS_NATIVE_THREADS_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
// Not from omp.h: compiled for OpenMP this would be linked with the compiler's runtime (clang's libomp), where it must
// be the one that oneDNN brings along (libgomp).
extern "C" int omp_get_max_threads(void);
extern "C" void omp_set_num_threads(int);
#elif DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_THREADPOOL
#include <sched.h>

#include <cstdint>
#include <optional>

#include "oneapi/dnnl/dnnl_threadpool.hpp"
#include "oneapi/dnnl/dnnl_threadpool_iface.hpp"
#endif

namespace jaxcls {

inline const dnnl::engine& cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Parts of a call, which several threads take one after another.
class Parts {
 public:
  using Function = std::function<void(int, int)>;

  Parts(int count, const Function& function) : count_(count), function_(&function) {}

  // Computes parts until none is left to be taken.
  void work() {
    const bool outer = std::exchange(is_working(), true);
    for (int part; (part = next_.fetch_add(1)) < count_;) {
      (*function_)(part, count_);
      std::lock_guard<std::mutex> lock(mutex_);
      if (++done_ == count_) finished_.notify_all();
    }
    is_working() = outer;
  }

  // Until those are computed, too, that others have taken.
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [this] { return done_ == count_; });
  }

  // Whether this thread is computing a part.
  static bool& is_working() {
    thread_local bool working = false;
    return working;
  }

 private:
  const int count_;
  // It is gone when the last part is done: who comes later takes none.
  const Function* const function_;
  std::atomic<int> next_{0};
  int done_ = 0;
  std::mutex mutex_;
  std::condition_variable finished_;
};

// Calls function(part, count) for each part, on the calling thread and on so many of the pool, less one.
//
// All threads of XLA's pool may be waiting for this very call, since each that calls a kernel beside it does. So the
// calling thread takes every part that no other has, and waits for no thread to begin.
inline void in_parallel(xla::ffi::ThreadPool& pool, int threads, int count, const Parts::Function& function) {
  const auto parts = std::make_shared<Parts>(count, function);
  for (int helpers = std::min(threads, count) - 1; helpers > 0; --helpers) {
    pool.Schedule([parts] { parts->work(); });
  }
  parts->work();
  parts->wait();
}

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP

// OpenMP keeps the number of threads for each calling thread, and others (threadpoolctl, PyTorch) set it in theirs.
// Sums are split by that number, so it is taken once: the same bits whichever thread of XLA calls.
class Threads {
 public:
  int count() const { return count_; }
  dnnl::stream stream() { return dnnl::stream(cpu()); }
  // For what the calling thread has oneDNN run from now on.
  void prepare(const xla::ffi::ThreadPool&) { omp_set_num_threads(count_); }

 private:
  int count_ = omp_get_max_threads();
};

#elif DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_THREADPOOL

// XLA's pool, which computes everything else of a step: no threads wake each other up or share cores with them.
class Threads : public dnnl::threadpool_interop::threadpool_iface {
 public:
  // Sums are split by this number, whatever the size of the pool is: the same bits in every call.
  int count() const { return count_; }
  dnnl::stream stream() { return dnnl::threadpool_interop::make_stream(cpu(), this); }
  // For what the calling thread has oneDNN run from now on.
  void prepare(const xla::ffi::ThreadPool& pool) {
    pool_.emplace(pool);
    // oneDNN splits the work of a primitive when it makes it, before it knows of the pool.
    dnnl_threadpool_interop_set_max_concurrency(count_);
  }

  int get_num_threads() const override { return count_; }
  bool get_in_parallel() const override { return Parts::is_working(); }
  uint64_t get_flags() const override { return 0; }
  void parallel_for(int count, const Parts::Function& function) override {
    in_parallel(*pool_, count_, count, function);
  }

 private:
  // The processors that this process may run on, as many as XLA's pool has threads.
  static int processors() {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  }

  int count_ = processors();
  std::optional<xla::ffi::ThreadPool> pool_;
};

#else

class Threads {
 public:
  int count() const { return 1; }
  dnnl::stream stream() { return dnnl::stream(cpu()); }
  void prepare(const xla::ffi::ThreadPool&) {}
};

#endif

}  // namespace jaxcls

#endif  // JAXCLS_NATIVE_THREADS_H_
