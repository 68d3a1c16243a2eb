// Runs primitives one after another, and owns what they share: their cache, workspace and threads.

#ifndef JAXCLS_NATIVE_EXECUTOR_H_
#define JAXCLS_NATIVE_EXECUTOR_H_

#include <array>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "primitive.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace jaxcls {

// Memory that grows to the largest size needed and is not freed: otherwise the system would have to zero its pages in
// every step.
class Workspace {
 public:
  char* of_size(size_t bytes) {
    if (bytes > size_) {
      memory_.reset(allocate(bytes));
      size_ = bytes;
    }
    return memory_.get();
  }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  static char* allocate(size_t bytes) {
    void* memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<char*>(memory);
  }

  std::unique_ptr<char, Free> memory_;
  size_t size_ = 0;
};

// XLA calls from any of its threads, and from several at once for independent operations or several devices. Each call
// uses all cores, so concurrent calls run one after another.
class Executor {
 public:
  using Key = std::vector<int64_t>;

  // The singleton. It is never destroyed, since threads of XLA may outlive main.
  static Executor& get() {
    static Executor* executor = new Executor;
    return *executor;
  }

  // Runs the primitive of a key, after creating it if needed.
  template <class Make>
  void run(const xla::ffi::ThreadPool& pool, const Key& key, const std::array<void*, 3>& buffers, Make make) {
    std::lock_guard<std::mutex> lock(mutex_);
    threads_.prepare(pool);
    auto found = primitives_.find(key);
    if (found == primitives_.end()) {
      // Bounds the memory of long-running processes. A model has fewer.
      if (primitives_.size() >= kMaxPrimitives) primitives_.clear();
      found = primitives_.emplace(key, make()).first;
    }
    Primitive& primitive = *found->second;
    primitive.run(stream_, buffers, workspace_.of_size(primitive.workspace_bytes()));
  }

  // Calls function(index, count) for each of as many tasks as there are threads.
  void in_parallel(xla::ffi::ThreadPool& pool, const Tasks::Function& function) {
    std::lock_guard<std::mutex> lock(mutex_);
    jaxcls::in_parallel(pool, threads(), threads(), function);
  }

  int threads() const { return threads_.count(); }
  size_t primitives() {
    std::lock_guard<std::mutex> lock(mutex_);
    return primitives_.size();
  }
  size_t workspace_bytes() {
    std::lock_guard<std::mutex> lock(mutex_);
    return workspace_.size();
  }

 private:
  static constexpr size_t kMaxPrimitives = 1024;

  Executor() : stream_(threads_.stream()) {}

  std::mutex mutex_;
  Threads threads_;
  dnnl::stream stream_;
  Workspace workspace_;
  std::map<Key, std::unique_ptr<Primitive>> primitives_;
};

}  // namespace jaxcls

#endif  // JAXCLS_NATIVE_EXECUTOR_H_
