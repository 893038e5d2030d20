#include "gpu/executor.h"

#include "errors.h"

namespace dovit::runtime {

namespace {

// See DeviceMemory: copies by the CUDA driver, on a stream of their own.
class CallerMemory : public DeviceMemory {
 public:
  explicit CallerMemory(DevicePtr device);

  std::shared_ptr<const void> after(void* stream) const override;
  void read(void* host, const void* device, size_t device_stride, size_t bytes, size_t count,
            void* stream) const override;
  void write(void* device, size_t device_stride, const void* host, size_t bytes, size_t count,
             void* stream) const override;

 private:
  void move(const Rows& to, const Rows& from, size_t bytes, size_t count, void* stream) const;

  const DevicePtr device_;
  mutable std::mutex mutex_;
  std::unique_ptr<const Stream> stream_;
};

CallerMemory::CallerMemory(DevicePtr device) : device_(std::move(device)) {
  const ContextGuard guard(*device_);
  stream_ = std::make_unique<Stream>(device_);
}

std::shared_ptr<const void> CallerMemory::after(void* stream) const {
  return std::make_shared<Event>(device_, static_cast<CUstream>(stream));
}

void CallerMemory::read(void* host, const void* device, size_t device_stride, size_t bytes, size_t count,
                        void* stream) const {
  move({host, bytes, false}, {const_cast<void*>(device), device_stride, true}, bytes, count, stream);
}

void CallerMemory::write(void* device, size_t device_stride, const void* host, size_t bytes, size_t count,
                         void* stream) const {
  move({device, device_stride, true}, {const_cast<void*>(host), bytes, false}, bytes, count, stream);
}

void CallerMemory::move(const Rows& to, const Rows& from, size_t bytes, size_t count, void* stream) const {
  const ContextGuard guard(*device_);
  const Event before(device_, static_cast<CUstream>(stream));
  const std::lock_guard<std::mutex> lock(mutex_);
  before.make_wait(stream_->get());
  copy_rows(*device_, to, from, bytes, count, stream_->get());
  stream_->wait();
}

}  // namespace

GpuExecutor::GpuExecutor(std::unique_ptr<const Plans> plans, std::optional<bool> graph, int runners)
    : plans_(std::move(plans)), memory_(std::make_shared<CallerMemory>(plans_->device)) {
  const ContextGuard guard(*plans_->device);
  const bool switches = plans_->device->can_switch();
  if (graph.value_or(false) && !switches)
    throw DovitError(text(plans_->device->name, ": SWITCH nodes need CUDA 12.8, and this driver runs ",
                          cuda_version(plans_->device->driver.version),
                          ": update the driver, or use the segmented mode (graph = DOVIT_SEGMENTED)"));
  for (int k = 0; k < runners; ++k) idle_.push_back(std::make_unique<Runner>(*plans_, graph));
}

GpuExecutor::~GpuExecutor() {
  const DevicePtr device = plans_->device;
  const ContextGuard guard(*device);
  idle_.clear();
  plans_.reset();  // TensorRT frees what it has on the device that is current
}

// CUDA errors are sticky; after one, the session refuses work.
Pass GpuExecutor::run(const Frame& frame, const Request& request) const {
  const ContextGuard guard(*plans_->device);
  const std::shared_ptr<Runner> runner(take().release(),
                                       [&](Runner* done) { give_back(std::unique_ptr<Runner>(done)); });
  runner->prepare(frame);  // nothing is under way, so what fails here leaves the session as it was
  try {
    return runner->run(frame, request);
  } catch (const UsageError&) {  // the caller's mistake, not the GPU's
    throw;
  } catch (const DovitError& error) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failure_.empty()) failure_ = error.what();
    changed_.notify_all();  // every thread that waits throws; none takes a runner and gives it back, to wake the next
    throw DovitError(
        text("the GPU failed: ", error.what(), "; the session refuses further work: load the bundle again"));
  }
}

std::unique_ptr<Runner> GpuExecutor::take() const {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return !idle_.empty() || !failure_.empty(); });
  if (!failure_.empty())
    throw DovitError(text("the session refuses work after an error (", failure_, "): load the bundle again"));
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
