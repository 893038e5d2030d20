// A program captured once, for the bundle's capacities. ξ is read from the device, so it may differ every time.
#pragma once

#include "gpu/transfers.h"

namespace dovit::runtime {

// Where a pass finds its pixels: in pinned memory, from where it uploads them, or on the device already.
enum class PixelSource { kPinned, kDevice };

class CapturedMode {
 public:
  virtual ~CapturedMode() = default;

  // Queues a pass on what was written last. What it reads back is there once the stream has got there.
  virtual void launch() const = 0;
};

}  // namespace dovit::runtime
