// A GPU's memory as callers hand it in, with the stream that their work is on (null: the default one).
#pragma once

#include <cstddef>
#include <memory>

namespace dovit::runtime {

class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;

  // An event after the work that is queued on `stream` so far, for other streams to wait for. Throws DovitError.
  virtual std::shared_ptr<const void> after(void* stream) const = 0;

  // Copies `count` rows of `bytes` each between the host and the device, after what `stream` holds, and waits for it.
  // Throws DovitError.
  virtual void read(void* host, const void* device, size_t device_stride, size_t bytes, size_t count,
                    void* stream) const = 0;
  virtual void write(void* device, size_t device_stride, const void* host, size_t bytes, size_t count,
                     void* stream) const = 0;
};

}  // namespace dovit::runtime
