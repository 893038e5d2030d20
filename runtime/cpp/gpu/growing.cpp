#include "gpu/growing.h"

#include "errors.h"

namespace dovit::runtime {

void Growing::reserve(size_t pinned, size_t held, const std::string& what) {
  if (!pinned_ || pinned_->bytes() < pinned) {
    pinned_.reset();  // before as much again is taken
    pinned_ = std::make_unique<PinnedBuffer>(device_, pinned);
  }
  if (held_ >= held) return;
  memory_.reset();
  held_ = 0;
  const size_t free = device_->free_bytes();
  if (held > free)
    throw DovitError(text(what, " needs ", mebibytes(held), " on ", device_->name, ", of which ", mebibytes(free),
                          " are free: give a smaller image, or use mode slide"));
  memory_ = std::make_unique<DeviceBuffer>(device_, held);
  held_ = held;
}

}  // namespace dovit::runtime
