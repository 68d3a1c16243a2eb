// A oneDNN primitive, created once and run many times on buffers in XLA's layouts.

#ifndef JAXCLS_NATIVE_PRIMITIVE_H_
#define JAXCLS_NATIVE_PRIMITIVE_H_

#include <array>
#include <cstddef>
#include <optional>
#include <unordered_map>
#include <utility>

#include "oneapi/dnnl/dnnl.hpp"
#include "threads.h"

namespace jaxcls {

// A buffer of XLA, and its layout in the primitive. Where the two differ, as for kernels, a reorder copies from one to
// the other; the layouts of activations are the same.
class Operand {
 public:
  enum class Role { kSource, kResult };

  Operand(Role role, int name, const dnnl::memory::desc& buffer, const dnnl::memory::desc& inner)
      : name_(name), role_(role), buffer_(buffer, cpu(), nullptr), inner_(inner, cpu(), nullptr) {
    if (buffer == inner) return;
    copied_bytes_ = inner.get_size();
    reorder_ = role == Role::kSource ? dnnl::reorder(buffer_, inner_) : dnnl::reorder(inner_, buffer_);
  }

  int name() const { return name_; }
  const dnnl::memory& inner() const { return inner_; }
  // Workspace size of the copy; 0 if there is none.
  size_t copied_bytes() const { return copied_bytes_; }

  void set_data(void* data, void* copy) {
    buffer_.set_data_handle(data);
    inner_.set_data_handle(reorder_ ? copy : data);
  }
  void copy_in(dnnl::stream& stream) {
    if (reorder_ && role_ == Role::kSource) reorder_->execute(stream, buffer_, inner_);
  }
  void copy_out(dnnl::stream& stream) {
    if (reorder_ && role_ == Role::kResult) reorder_->execute(stream, inner_, buffer_);
  }

 private:
  int name_;
  Role role_;
  dnnl::memory buffer_, inner_;
  size_t copied_bytes_ = 0;
  std::optional<dnnl::reorder> reorder_;
};

// A primitive with two sources and a result, in XLA's order. Not thread-safe: it stores the buffers of the current
// call.
class Primitive {
 public:
  Primitive(const dnnl::primitive_desc_base& description, dnnl::primitive primitive, std::array<Operand, 3> operands)
      : primitive_(std::move(primitive)),
        operands_(std::move(operands)),
        scratchpad_(description.query_md(dnnl::query::scratchpad_md), cpu(), nullptr) {
    for (const Operand& operand : operands_) arguments_.insert({operand.name(), operand.inner()});
    arguments_.insert({DNNL_ARG_SCRATCHPAD, scratchpad_});
  }

  size_t workspace_bytes() const {
    size_t total = aligned(scratchpad_.get_desc().get_size());
    for (const Operand& operand : operands_) total += aligned(operand.copied_bytes());
    return total;
  }

  void run(dnnl::stream& stream, const std::array<void*, 3>& buffers, char* workspace) {
    for (size_t i = 0; i < operands_.size(); ++i) {
      operands_[i].set_data(buffers[i], workspace);
      workspace += aligned(operands_[i].copied_bytes());
    }
    // The arguments share these handles, since dnnl::memory is reference-counted.
    scratchpad_.set_data_handle(workspace);
    for (Operand& operand : operands_) operand.copy_in(stream);
    primitive_.execute(stream, arguments_);
    for (Operand& operand : operands_) operand.copy_out(stream);
    stream.wait();
  }

 private:
  // Each section of the workspace starts on a page, as a separate allocation would.
  static size_t aligned(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

  dnnl::primitive primitive_;
  std::array<Operand, 3> operands_;
  dnnl::memory scratchpad_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

}  // namespace jaxcls

#endif  // JAXCLS_NATIVE_PRIMITIVE_H_
