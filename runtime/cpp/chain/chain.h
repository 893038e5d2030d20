// The steps of a bundle, one after the other: the tensors flow by name, the decisions say how many tokens go on.
#pragma once

#include <mutex>

#include "chain/buffers.h"
#include "chain/engine.h"
#include "chain/executor.h"

namespace dovit::runtime {

class Chain : public Executor {
 public:
  // `engines`: one a step of the manifest, which must outlive the chain.
  Chain(const Manifest& manifest, std::vector<std::unique_ptr<Engine>> engines,
        Schedule default_schedule = Schedule::kExact);

  Pass run(const Frame& frame, const Request& request) const override;
  Schedule default_schedule() const override { return default_schedule_; }

 private:
  Pass run(const Workspace& workspace, const uint8_t* pixels, const Request& request) const;
  std::vector<int64_t> capacities(const Request& request, size_t decision) const;
  void end_early(const DecisionSpec& decision, Tensors& tensors) const;
  std::unique_ptr<Workspace> take() const;

  const Manifest& manifest_;
  const std::vector<std::unique_ptr<Engine>> engines_;
  const Schedule default_schedule_;
  const BufferPlan plan_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;  // each pass takes one, so threads share a chain
};

}  // namespace dovit::runtime
