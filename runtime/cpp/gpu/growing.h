// Pinned memory and memory on the device that grow with the largest image so far, never while a pass is under way.
#pragma once

#include <string>

#include "gpu/device.h"

namespace dovit::runtime {

class Growing {
 public:
  explicit Growing(DevicePtr device) : device_(std::move(device)) {}

  // Have at least so many bytes of each; what was in them is lost. Throws DovitError where the device has too few for
  // `what`.
  void reserve(size_t pinned, size_t held, const std::string& what);

  template <class T = uint8_t>
  T* pinned() const {
    return pinned_->as<T>();
  }
  CUdeviceptr place() const { return memory_->place(); }

 private:
  const DevicePtr device_;
  size_t held_ = 0;
  std::unique_ptr<PinnedBuffer> pinned_;
  std::unique_ptr<DeviceBuffer> memory_;
};

}  // namespace dovit::runtime
