// A oneDNN primitive, made once and run many times on buffers in the layouts that XLA has.

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

// A buffer of XLA, and the layout that the primitive wants it in. Where the two differ, as they do for kernels, a
// reorder copies from one to the other; activations are given as they are wanted.
class Operand {
 public:
  enum class Role { kSource, kResult };

  Operand(Role role, int name, const dnnl::memory::desc& given, const dnnl::memory::desc& wanted)
      : name_(name), role_(role), given_(given, cpu(), nullptr), wanted_(wanted, cpu(), nullptr) {
    if (given == wanted) return;
    copied_bytes_ = wanted.get_size();
    reorder_ = role == Role::kSource ? dnnl::reorder(given_, wanted_) : dnnl::reorder(wanted_, given_);
  }

  int name() const { return name_; }
  const dnnl::memory& wanted() const { return wanted_; }
  // What the copy takes of the workspace; 0 where there is none.
  size_t copied_bytes() const { return copied_bytes_; }

  void place(void* buffer, void* copy) {
    given_.set_data_handle(buffer);
    wanted_.set_data_handle(reorder_ ? copy : buffer);
  }
  void copy_in(dnnl::stream& stream) {
    if (reorder_ && role_ == Role::kSource) reorder_->execute(stream, given_, wanted_);
  }
  void copy_out(dnnl::stream& stream) {
    if (reorder_ && role_ == Role::kResult) reorder_->execute(stream, wanted_, given_);
  }

 private:
  int name_;
  Role role_;
  dnnl::memory given_, wanted_;
  size_t copied_bytes_ = 0;
  std::optional<dnnl::reorder> reorder_;
};

// Two sources and a result, in the order in which XLA gives them. Not for two threads at once: the buffers of a call
// are noted in it.
class Primitive {
 public:
  Primitive(const dnnl::primitive_desc_base& description, dnnl::primitive primitive, std::array<Operand, 3> operands)
      : primitive_(std::move(primitive)),
        operands_(std::move(operands)),
        scratchpad_(description.query_md(dnnl::query::scratchpad_md), cpu(), nullptr) {
    for (const Operand& operand : operands_) arguments_.insert({operand.name(), operand.wanted()});
    arguments_.insert({DNNL_ARG_SCRATCHPAD, scratchpad_});
  }

  size_t workspace_bytes() const {
    size_t total = aligned(scratchpad_.get_desc().get_size());
    for (const Operand& operand : operands_) total += aligned(operand.copied_bytes());
    return total;
  }

  void run(dnnl::stream& stream, const std::array<void*, 3>& buffers, char* workspace) {
    for (size_t i = 0; i < operands_.size(); ++i) {
      operands_[i].place(buffers[i], workspace);
      workspace += aligned(operands_[i].copied_bytes());
    }
    // The arguments share their handles with the operands: a dnnl::memory is a counted reference.
    scratchpad_.set_data_handle(workspace);
    for (Operand& operand : operands_) operand.copy_in(stream);
    primitive_.execute(stream, arguments_);
    for (Operand& operand : operands_) operand.copy_out(stream);
    stream.wait();
  }

 private:
  // Each part of the workspace begins on a page, as what is allocated by itself does.
  static size_t aligned(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

  dnnl::primitive primitive_;
  std::array<Operand, 3> operands_;
  dnnl::memory scratchpad_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

}  // namespace jaxcls

#endif  // JAXCLS_NATIVE_PRIMITIVE_H_
