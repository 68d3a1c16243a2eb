// The threads that a call runs on, by what oneDNN is built for: OpenMP's own, those of XLA, or the calling one alone.

#ifndef JAXCLS_NATIVE_THREADS_H_
#define JAXCLS_NATIVE_THREADS_H_

#include <algorithm>
#include <utility>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
// Not from omp.h: compiled for OpenMP this would be linked with the compiler's runtime (clang's libomp), where it must
// be the one that oneDNN brings along (libgomp).
extern "C" int omp_get_max_threads(void);
extern "C" void omp_set_num_threads(int);
extern "C" int omp_get_thread_num(void);
extern "C" void GOMP_parallel(void (*function)(void*), void* data, unsigned threads, unsigned flags);
#elif DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_THREADPOOL
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "oneapi/dnnl/dnnl_threadpool.hpp"
#include "oneapi/dnnl/dnnl_threadpool_iface.hpp"
#endif

namespace jaxcls {

inline const dnnl::engine& cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP

// OpenMP keeps the number of threads for each calling thread, and others (threadpoolctl, PyTorch) set it in theirs.
// Sums are split by that number, so it is taken once: the same bits whichever thread of XLA calls.
class Threads {
 public:
  int count() const { return count_; }
  dnnl::stream stream() { return dnnl::stream(cpu()); }

  // For what the calling thread runs from now on.
  void prepare(const xla::ffi::ThreadPool&) { omp_set_num_threads(count_); }

  // Calls body(thread, threads) once on each thread.
  template <class Body>
  void in_parallel(const Body& body) {
    // What `#pragma omp parallel` is compiled to, by the runtime whose threads are oneDNN's as well.
    std::pair<const Body&, int> given(body, count_);
    const auto function = [](void* data) {
      const auto& [body, threads] = *static_cast<std::pair<const Body&, int>*>(data);
      body(omp_get_thread_num(), threads);
    };
    GOMP_parallel(function, &given, count_, 0);
  }

 private:
  int count_ = omp_get_max_threads();
};

#elif DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_THREADPOOL

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

// The pool of XLA, which computes everything else of the step: no thread of another pool gets in its way.
//
// All threads of the pool may be waiting for this very call, since each that calls a kernel beside it does. So the
// calling thread takes every part that no other has, and waits for no thread to begin.
class Threads : public dnnl::threadpool_interop::threadpool_iface {
 public:
  // Sums are split by this number, whatever the size of the pool is: the same bits in every call.
  int count() const { return count_; }
  dnnl::stream stream() { return dnnl::threadpool_interop::make_stream(cpu(), this); }

  // For what the calling thread runs from now on.
  void prepare(const xla::ffi::ThreadPool& pool) {
    pool_.emplace(pool);
    // oneDNN splits the work of a primitive when it makes it, before it knows of the pool.
    dnnl_threadpool_interop_set_max_concurrency(count_);
  }

  // Calls body(thread, threads) once for each thread.
  template <class Body>
  void in_parallel(const Body& body) {
    parallel_for(count_, body);
  }

  int get_num_threads() const override { return count_; }
  bool get_in_parallel() const override { return Parts::is_working(); }
  uint64_t get_flags() const override { return 0; }
  void parallel_for(int count, const Parts::Function& function) override {
    const auto parts = std::make_shared<Parts>(count, function);
    for (int helpers = std::min(count, count_) - 1; helpers > 0; --helpers) {
      pool_->Schedule([parts] { parts->work(); });
    }
    parts->work();
    parts->wait();
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
  template <class Body>
  void in_parallel(const Body& body) {
    body(0, 1);
  }
};

#endif

}  // namespace jaxcls

#endif  // JAXCLS_NATIVE_THREADS_H_
