// See DeviceMemory: copies by the CUDA driver, on a stream of their own.
#pragma once

#include <mutex>

#include "chain/device_memory.h"
#include "gpu/device.h"

namespace dovit::runtime {

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

}  // namespace dovit::runtime
