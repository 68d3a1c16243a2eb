// The threads of a call: XLA's for our own code; for oneDNN it depends on the build.

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
// Declared here instead of including omp.h: compiling for OpenMP would link the compiler's runtime (clang's libomp)
// instead of the one of oneDNN (libgomp).
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

// The tasks of a parallel section, which several threads take one after another.
class Tasks {
 public:
  using Function = std::function<void(int, int)>;

  Tasks(int count, const Function& function) : count_(count), function_(&function) {}

  // Runs tasks until none is left.
  void work() {
    const bool outer = std::exchange(is_working(), true);
    for (int index; (index = next_.fetch_add(1)) < count_;) {
      (*function_)(index, count_);
      std::lock_guard<std::mutex> lock(mutex_);
      if (++done_ == count_) finished_.notify_all();
    }
    is_working() = outer;
  }

  // Waits for the tasks of other threads.
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [this] { return done_ == count_; });
  }

  // Whether this thread is running a task.
  static bool& is_working() {
    thread_local bool working = false;
    return working;
  }

 private:
  const int count_;
  // Not valid after the last task has finished; threads that start later run none.
  const Function* const function_;
  std::atomic<int> next_{0};
  int done_ = 0;
  std::mutex mutex_;
  std::condition_variable finished_;
};

// Calls function(index, count) for each of count tasks, on the calling thread and at most threads - 1 of the pool.
//
// All threads of XLA's pool may be waiting for this call, if each of them called a kernel. So the calling thread runs
// every task that no other thread has taken, and never waits for a thread to start.
inline void in_parallel(xla::ffi::ThreadPool& pool, int threads, int count, const Tasks::Function& function) {
  const auto tasks = std::make_shared<Tasks>(count, function);
  for (int helpers = std::min(threads, count) - 1; helpers > 0; --helpers) {
    pool.Schedule([tasks] { tasks->work(); });
  }
  tasks->work();
  tasks->wait();
}

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP

// OpenMP has a number of threads for each calling thread, which other libraries (threadpoolctl, PyTorch) change. Sums
// are divided by that number, so it is read once: the same bits whichever thread of XLA calls.
class Threads {
 public:
  int count() const { return count_; }
  dnnl::stream stream() { return dnnl::stream(cpu()); }
  // Configures the calling thread before it runs oneDNN.
  void prepare(const xla::ffi::ThreadPool&) { omp_set_num_threads(count_); }

 private:
  int count_ = omp_get_max_threads();
};

#elif DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_THREADPOOL

// XLA's pool, which runs everything else of a step: no second pool of threads competes for the cores.
class Threads : public dnnl::threadpool_interop::threadpool_iface {
 public:
  // Sums are divided by this number, whatever the size of the pool is: the same bits in every call.
  int count() const { return count_; }
  dnnl::stream stream() { return dnnl::threadpool_interop::make_stream(cpu(), this); }
  // Configures the calling thread before it runs oneDNN.
  void prepare(const xla::ffi::ThreadPool& pool) {
    pool_.emplace(pool);
    // oneDNN divides the work of a primitive when it is created, before it knows the pool.
    dnnl_threadpool_interop_set_max_concurrency(count_);
  }

  int get_num_threads() const override { return count_; }
  bool get_in_parallel() const override { return Tasks::is_working(); }
  uint64_t get_flags() const override { return 0; }
  void parallel_for(int count, const Tasks::Function& function) override {
    in_parallel(*pool_, count_, count, function);
  }

 private:
  // The number of processors available to this process, which is the number of threads of XLA's pool.
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
