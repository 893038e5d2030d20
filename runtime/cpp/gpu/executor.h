// A session's executor on a GPU: a pool of runners, which threads take in turns.
#pragma once

#include <condition_variable>
#include <mutex>

#include "gpu/runner.h"

namespace dovit::runtime {

class GpuExecutor : public Executor {
 public:
  // `graph`: one CUDA graph an image or one a segment, none: the former where the driver has it. `runners`: images that
  // are under way at a time. Throws DovitError.
  GpuExecutor(std::unique_ptr<const Plans> plans, std::optional<bool> graph, int runners);
  ~GpuExecutor() override;

  Pass run(const Frame& frame, const Request& request) const override;
  bool accepts_size(Size size) const override { return size.height <= kMaxRows; }
  Schedule default_schedule() const override { return Schedule::kBucketed; }
  std::shared_ptr<const DeviceMemory> device_memory() const override { return memory_; }

 private:
  std::unique_ptr<Runner> take() const;
  void give_back(std::unique_ptr<Runner> runner) const;

  std::unique_ptr<const Plans> plans_;
  const std::shared_ptr<const DeviceMemory> memory_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable std::vector<std::unique_ptr<Runner>> idle_;
  mutable std::string failure_;  // after which the session refuses work
};

}  // namespace dovit::runtime
