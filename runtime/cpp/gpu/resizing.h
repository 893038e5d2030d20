// Images of another size than the bundle's: resized on the device as Pillow does it, to the bit, and labelled at their
// own size, from the logits on the device.
#pragma once

#include <string>

#include "chain/executor.h"
#include "gpu/program.h"
#include "image/pixels.h"

namespace dovit::runtime {

constexpr int kMaxRows = 65535;  // of an image: the kernel's grid has a block for each

// Pinned memory and memory on the device that grow with the largest image so far, never while a pass is under way.
class StagingBuffers {
 public:
  explicit StagingBuffers(DevicePtr device) : device_(std::move(device)) {}

  // Have at least so many bytes of each; what was in them is lost. Throws DovitError where the device has too few for
  // `what`.
  void reserve(size_t pinned, size_t on_device, const std::string& what);

  template <class T = uint8_t>
  T* pinned() const {
    return pinned_->as<T>();
  }
  CUdeviceptr address() const { return memory_->address(); }

 private:
  const DevicePtr device_;
  size_t device_bytes_ = 0;
  std::unique_ptr<PinnedBuffer> pinned_;
  std::unique_ptr<DeviceBuffer> memory_;
};

// For one image at a time. What it needs lies in one piece of pinned memory and again on the device, so one copy takes
// it there: the weights across, those down, the pixels. On the device scratch memory comes after them.
class ImageResizer {
 public:
  // `size`: the bundle's.
  ImageResizer(DevicePtr device, const Kernels& kernels, Size size);

  // For images of this size. Throws DovitError where they do not fit into memory.
  void prepare(Size image);

  // Queue the resizing of a frame of the size prepared last, to [h, w, 3] of the bundle's size at `out`.
  void enqueue(const Frame& frame, CUdeviceptr out, CUstream stream) const;

 private:
  const DevicePtr device_;
  const Kernels& kernels_;
  const Size size_;
  StagingBuffers buffers_;
  Size image_;
  int across_width_ = 0, down_width_ = 0;       // weights a pixel
  size_t down_ = 0, pixels_ = 0, scratch_ = 0;  // where the parts begin after the weights across, in bytes
};

// The labels of one image at a time, at its size.
class ResizedLabels {
 public:
  explicit ResizedLabels(const LoadedProgram& program);

  // For images of this size. Throws DovitError where their labels do not fit into memory.
  void prepare(Size image);

  // Queue the kernel, on the logits of the pass before it, and the copy back.
  void enqueue(CUstream stream) const;
  void enqueue_download(CUstream stream) const;

  // [1, H, W], once the stream has got there.
  Tensor read() const;

  // Where they lie on the device.
  CUdeviceptr address() const { return buffers_.address(); }

 private:
  size_t bytes() const;

  const LoadedProgram& program_;
  const DType type_;
  StagingBuffers buffers_;
  Size image_;
};

}  // namespace dovit::runtime
