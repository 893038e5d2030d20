// RAII owners of one GPU's resources: its primary context, memory, streams, events. Each holds a shared pointer to the
// device, which its destructor needs.
#pragma once

#include <memory>

#include "gpu/driver.h"
#include "non_copyable.h"

namespace dovit::runtime {

class Device : NonCopyable {
 public:
  // GPU `number` of this machine. Throws DovitError where there is none.
  static std::shared_ptr<const Device> open(int number);
  ~Device();

  const Driver driver;
  std::string name;
  int capability_major = 0, capability_minor = 0;

  std::string capability() const;  // such as 8.9
  bool can_switch() const;         // CUDA 12.8's SWITCH nodes
  size_t free_bytes() const;       // what may still be allocated
  CUcontext context() const { return context_; }

  // Throws DovitError with the function that failed and why.
  void check(CUresult status, const char* function) const;

 private:
  explicit Device(int number);

  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
};

using DevicePtr = std::shared_ptr<const Device>;

// Makes the context of a device current for the calling thread while it lives. A failure shows in the next call.
class ContextGuard : NonCopyable {
 public:
  explicit ContextGuard(const Device& device) noexcept;
  ~ContextGuard();

 private:
  const Device& device_;
  const bool pushed_;
};

// A number of bytes in MiB, for messages.
std::string mebibytes(size_t bytes);

// Memory on the device, of unspecified content.
class DeviceBuffer : NonCopyable {
 public:
  DeviceBuffer(DevicePtr device, size_t bytes);
  ~DeviceBuffer();

  CUdeviceptr address() const { return address_; }

 private:
  const DevicePtr device_;
  CUdeviceptr address_ = 0;
};

// Memory of the host that the device copies from and to by itself.
class PinnedBuffer : NonCopyable {
 public:
  PinnedBuffer(DevicePtr device, size_t bytes);
  ~PinnedBuffer();

  size_t bytes() const { return bytes_; }
  template <class T = uint8_t>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  const DevicePtr device_;
  const size_t bytes_;
  void* data_ = nullptr;
};

// A non-blocking stream: it does not synchronise with the default stream.
class Stream : NonCopyable {
 public:
  explicit Stream(DevicePtr device);
  ~Stream();

  CUstream get() const { return stream_; }
  void wait() const;  // for all that was queued on it

 private:
  const DevicePtr device_;
  CUstream stream_ = nullptr;
};

// A CUDA event, recorded on a stream when it is made.
class Event : NonCopyable {
 public:
  Event(DevicePtr device, CUstream stream);
  ~Event();

  void make_wait(CUstream stream) const;  // until the event has been reached

 private:
  const DevicePtr device_;
  CUevent event_ = nullptr;
};

// Queues a copy in any direction.
void copy(const Device& device, CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
inline CUdeviceptr host_address(const void* host) { return reinterpret_cast<CUdeviceptr>(host); }

// Rows of bytes with a stride, on the host or on the device.
struct Rows {
  void* data = nullptr;
  size_t stride = 0;
  bool on_device = false;
};

// Queues a copy of `count` rows of `bytes` each.
void copy_rows(const Device& device, const Rows& to, const Rows& from, size_t bytes, size_t count, CUstream stream);

}  // namespace dovit::runtime
