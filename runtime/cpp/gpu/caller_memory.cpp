#include "gpu/caller_memory.h"

namespace dovit::runtime {

CallerMemory::CallerMemory(DevicePtr device) : device_(std::move(device)) {
  const Current current(*device_);
  stream_ = std::make_unique<Stream>(device_);
}

std::shared_ptr<const void> CallerMemory::after(void* stream) const {
  return std::make_shared<Moment>(device_, static_cast<CUstream>(stream));
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
  const Current current(*device_);
  const Moment before(device_, static_cast<CUstream>(stream));
  const std::lock_guard<std::mutex> lock(mutex_);
  before.hold_back(stream_->get());
  copy_rows(*device_, to, from, bytes, count, stream_->get());
  stream_->wait();
}

}  // namespace dovit::runtime
