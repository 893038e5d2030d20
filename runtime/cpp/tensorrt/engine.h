// A TensorRT plan on the device: an engine, and a context for every set of sizes that a program keeps.
//
// A context's settings and memory of its own become part of what is captured with it, so none serves two sizes, nor two
// programs, which may run side by side. Sizes that do not come again share one context of their program. Scratch memory
// is the program's, for all its contexts, which take turns.
#pragma once

#include <optional>

#include "gpu/engine.h"
#include "tensorrt/library.h"

namespace dovit::runtime {

class TensorRtEngine : public PlanEngine {
 public:
  TensorRtEngine(std::shared_ptr<TensorRt> tensorrt, std::shared_ptr<SharedEngine> engine, const PlanStep& step);

  size_t scratch_bytes() const override { return scratch_bytes_; }
  void enqueue(const PlanCall& call) const override;
  std::string why_not_capturable(const PlanCall& call) const override;

 private:
  using ContextPtr = std::unique_ptr<tensorrt::Context>;

  tensorrt::Context& context(const PlanCall& call) const;
  ContextPtr make_context(tensorrt::Specialization specialization) const;
  void set_sizes(tensorrt::Context& context, const PlanCall& call, bool again) const;
  void check(bool taken, const std::string& what) const;

  const std::shared_ptr<TensorRt> tensorrt_;
  const std::shared_ptr<SharedEngine> engine_;
  const PlanStep& step_;
  const size_t scratch_bytes_;
  mutable std::mutex mutex_;
  // by the program's scratch memory and the tokens; those of none serve all sizes that do not come again
  mutable std::map<std::pair<CUdeviceptr, std::optional<int64_t>>, ContextPtr> contexts_;
};

}  // namespace dovit::runtime
