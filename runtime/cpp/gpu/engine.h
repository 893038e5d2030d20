// What runs one plan on the device.
#pragma once

#include <map>
#include <string>

#include "chain/dimensions.h"
#include "gpu/device.h"

namespace dovit::runtime {

using Places = std::map<std::string, CUdeviceptr>;

// One run of a plan: where its tensors lie, by name, and the sizes of their named dimensions.
struct PlanRun {
  const Places& places;
  const Dimensions& dims;
  CUdeviceptr scratch;
  CUstream stream;
  bool lasting;  // these sizes come again, or are captured: what is set up for them is kept
};

class PlanEngine {
 public:
  virtual ~PlanEngine() = default;

  // At its largest shapes; all engines of a program share one region, for they take turns.
  virtual size_t scratch_bytes() const = 0;

  // Queues the plan. Calls from several threads at a time are allowed, each with scratch memory of its own. Throws
  // DovitError where the runtime refuses: a capture must not go on without this plan.
  virtual void enqueue(const PlanRun& run) const = 0;
};

}  // namespace dovit::runtime
