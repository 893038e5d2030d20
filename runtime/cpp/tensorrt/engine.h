// A TensorRT plan on the device: one deserialized engine, and a context for every set of sizes that a program keeps.
//
// A context's settings and memory of its own become part of what is captured with it, so none serves two sizes, nor two
// programs, which may run side by side. Sizes that do not come again share one context of their program. Scratch memory
// is the program's, for all its contexts, which take turns.
#pragma once

#include "gpu/engine.h"
#include "tensorrt/library.h"

namespace dovit::runtime {

class TensorRtEngine : public PlanEngine {
 public:
  // `file`: the plan's, whose hash the caller has checked. Throws DovitError.
  TensorRtEngine(std::shared_ptr<const TensorRt> library, const PlanStep& step, const std::string& file);

  size_t scratch_bytes() const override { return scratch_bytes_; }
  void enqueue(const PlanCall& call) const override;

 private:
  struct Context {
    Owned settings, context;  // freed in the other order
  };

  void* context(const PlanCall& call) const;
  Context make_context() const;
  void set_sizes(void* context, const PlanCall& call, bool again) const;
  void check(bool taken, const std::string& what) const;

  const std::shared_ptr<const TensorRt> library_;
  const PlanStep& step_;
  const Owned engine_;
  const size_t scratch_bytes_;
  mutable std::mutex mutex_;
  // by the program's scratch memory and the tokens; those of none serve all sizes that do not come again
  mutable std::map<std::pair<CUdeviceptr, std::optional<int64_t>>, Context> contexts_;
};

}  // namespace dovit::runtime
