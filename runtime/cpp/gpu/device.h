// One GPU, and what is taken on it: memory, streams, events. All of it is given back by destructors, which need the
// device, so everything holds on to it.
#pragma once

#include <memory>

#include "gpu/driver.h"
#include "not_copied.h"

namespace dovit::runtime {

class Device : NotCopied {
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

// Has the calling thread work on a device while it lives. Where that fails, what is asked of the device says so.
class Current : NotCopied {
 public:
  explicit Current(const Device& device) noexcept;
  ~Current();

 private:
  const Device& device_;
  const bool pushed_;
};

// A size as a sentence has it.
std::string mebibytes(size_t bytes);

// Memory on the device, of unspecified content.
class DeviceBuffer : NotCopied {
 public:
  DeviceBuffer(DevicePtr device, size_t bytes);
  ~DeviceBuffer();

  CUdeviceptr place() const { return place_; }

 private:
  const DevicePtr device_;
  CUdeviceptr place_ = 0;
};

// Memory of the host that the device copies from and to by itself.
class PinnedBuffer : NotCopied {
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

// A stream that does not wait for the default one.
class Stream : NotCopied {
 public:
  explicit Stream(DevicePtr device);
  ~Stream();

  CUstream get() const { return stream_; }
  void wait() const;  // for all that was queued on it

 private:
  const DevicePtr device_;
  CUstream stream_ = nullptr;
};

// A moment of a stream, taken when it is made.
class Moment : NotCopied {
 public:
  Moment(DevicePtr device, CUstream stream);
  ~Moment();

  void hold_back(CUstream stream) const;  // until that moment is over

 private:
  const DevicePtr device_;
  CUevent event_ = nullptr;
};

// Queues a copy in any direction.
void copy(const Device& device, CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
inline CUdeviceptr address(const void* host) { return reinterpret_cast<CUdeviceptr>(host); }

// Some rows of bytes, in memory of the host or of the device.
struct Rows {
  void* data = nullptr;
  size_t stride = 0;
  bool on_device = false;
};

// Queues a copy of `count` rows of `bytes` each.
void copy_rows(const Device& device, const Rows& to, const Rows& from, size_t bytes, size_t count, CUstream stream);

}  // namespace dovit::runtime
