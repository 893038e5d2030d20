// Images of another size than the bundle's: uploaded as they are, and resized on the device as Pillow does it, to the
// bit.
#pragma once

#include "chain/executor.h"
#include "gpu/growing.h"
#include "gpu/kernels.h"

namespace dovit::runtime {

constexpr int kMostRows = 65535;  // of an image: the kernels' grids have a block for each

// For one image at a time. What it needs lies in one piece of pinned memory and again on the device, so one copy takes
// it there: the weights across, those down, the pixels. On the device scratch memory comes after them.
class Resizing {
 public:
  // `size`: the bundle's.
  Resizing(DevicePtr device, const Kernels& kernels, Size size);

  // For images of this size. Throws DovitError where they do not fit into memory.
  void prepare(Size image);

  // Queue the resizing of a frame of the size prepared last, to [h, w, 3] of the bundle's size at `out`.
  void enqueue(const Frame& frame, CUdeviceptr out, CUstream stream) const;

 private:
  const DevicePtr device_;
  const Kernels& kernels_;
  const Size size_;
  Growing memory_;
  Size image_;
  int across_width_ = 0, down_width_ = 0;       // weights a pixel
  size_t down_ = 0, pixels_ = 0, scratch_ = 0;  // where the parts begin after the weights across, in bytes
};

}  // namespace dovit::runtime
