// Labels of images of another size than the bundle's, at that size: made of the logits on the device.
#pragma once

#include "gpu/growing.h"
#include "gpu/program.h"
#include "image/pixels.h"

namespace dovit::runtime {

// For one image at a time.
class OwnLabels {
 public:
  explicit OwnLabels(const Program& program);

  // For images of this size. Throws DovitError where their labels do not fit into memory.
  void prepare(Size image);

  // Queue the kernel, on the logits of the pass before it, and the copy back.
  void enqueue(CUstream stream) const;
  void enqueue_download(CUstream stream) const;

  // [1, H, W], once the stream has got there.
  Tensor read() const;

  // Where they lie on the device.
  CUdeviceptr place() const { return memory_.place(); }

 private:
  size_t bytes() const;

  const Program& program_;
  const DType type_;
  Growing memory_;
  Size image_;
};

}  // namespace dovit::runtime
