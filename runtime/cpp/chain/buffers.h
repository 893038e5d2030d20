// Where the tensors between the steps live: planned once from the manifest, reused by every image. Two tensors share
// memory if no step needs both. Sizes are those of an image that keeps every token, so nothing grows.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "chain/tensor.h"

namespace dovit::runtime {

// The slot of each planned tensor, and the bytes of each slot.
struct BufferPlan {
  std::map<std::string, size_t> slot;
  std::vector<size_t> sizes;
};

// Slots are assigned greedily in the order of the steps. Decisions' `keep` has none: its size is known only when the
// decision has run.
BufferPlan plan_buffers(const Manifest& manifest);

// The buffers of one pass.
class Workspace {
 public:
  explicit Workspace(const BufferPlan& plan);

  // The place of a tensor at its present shape. Throws DovitError where it does not fit.
  Tensor place(const TensorSpec& spec, const Dimensions& dims) const;

 private:
  const BufferPlan& plan_;
  std::vector<Tensor> slots_;
};

}  // namespace dovit::runtime
