#include "gpu/executor.h"

#include "errors.h"
#include "gpu/caller_memory.h"

namespace dovit::runtime {

GpuExecutor::GpuExecutor(std::unique_ptr<const Plans> plans, std::optional<bool> graph, int runners)
    : plans_(std::move(plans)), memory_(std::make_shared<CallerMemory>(plans_->device)) {
  const Current current(*plans_->device);
  const bool switches = plans_->device->can_switch();
  if (graph.value_or(false) && !switches)
    throw DovitError(text(plans_->device->name, ": SWITCH nodes need CUDA 12.8, and this driver runs ",
                          cuda_version(plans_->device->driver.version),
                          ": update the driver, or use the segmented mode (graph = DOVIT_SEGMENTED)"));
  for (int k = 0; k < runners; ++k) idle_.push_back(std::make_unique<Runner>(*plans_, graph));
}

GpuExecutor::~GpuExecutor() {
  const Current current(*plans_->device);
  idle_.clear();
}

// What a GPU computes after an error is nobody's guess: the first one is the last that it is asked.
Pass GpuExecutor::run(const Frame& frame, const Request& request) const {
  const Current current(*plans_->device);
  const std::shared_ptr<Runner> runner(take().release(),
                                       [&](Runner* done) { give_back(std::unique_ptr<Runner>(done)); });
  runner->prepare(frame);  // nothing is under way, so what fails here leaves the session as it was
  try {
    return runner->run(frame, request);
  } catch (const DovitError& error) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (dead_.empty()) dead_ = error.what();
    throw DovitError(text("the GPU failed: ", error.what(), "; this session is dead: load the bundle again"));
  }
}

std::unique_ptr<Runner> GpuExecutor::take() const {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return !idle_.empty(); });
  if (!dead_.empty()) throw DovitError(text("this session is dead (", dead_, "): load the bundle again"));
  std::unique_ptr<Runner> runner = std::move(idle_.back());
  idle_.pop_back();
  return runner;
}

void GpuExecutor::give_back(std::unique_ptr<Runner> runner) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(runner));
  changed_.notify_one();
}

}  // namespace dovit::runtime
