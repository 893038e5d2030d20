// What runs one plan on the device.
#pragma once

#include <map>
#include <string>

#include "chain/dimensions.h"
#include "gpu/device.h"

namespace dovit::runtime {

// One run of a plan.
struct PlanCall {
  std::map<std::string, CUdeviceptr> addresses;  // of its tensors
  std::map<std::string, Shape> shapes;
  int64_t tokens;  // that its segment runs on, which is all that its shapes depend on
  size_t profile;  // the number of its optimisation profile
  CUdeviceptr scratch;
  CUstream stream;
  bool recurring;  // these shapes come again, or are captured: what is set up for them is kept
};

class PlanEngine {
 public:
  virtual ~PlanEngine() = default;

  // At its largest shapes; all engines of a program share one region, for they take turns.
  virtual size_t scratch_bytes() const = 0;

  // Queues the plan. Calls from several threads at a time are allowed, each with scratch memory of its own. Throws
  // DovitError where the runtime refuses: a capture must not go on without this plan.
  virtual void enqueue(const PlanCall& call) const = 0;

  // Why a call that was enqueued before cannot be captured; empty where nothing is known against it. Throws DovitError.
  virtual std::string why_not_capturable(const PlanCall& call) const = 0;
};

}  // namespace dovit::runtime
