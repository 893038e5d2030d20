#include "gpu/resizing.h"

#include <algorithm>
#include <cstring>

#include "errors.h"
#include "gpu/memory_plan.h"
#include "resize_taps.h"

namespace dovit::runtime {

namespace {

// The weights of one direction as the kernel reads them.
std::vector<int> table(const ResizeTaps& taps) {
  std::vector<int> all(taps.first);
  all.insert(all.end(), taps.count.begin(), taps.count.end());
  all.insert(all.end(), taps.weights.begin(), taps.weights.end());
  return all;
}

size_t bytes(const std::vector<int>& table) { return table.size() * sizeof(int); }

}  // namespace

Resizing::Resizing(DevicePtr device, const Kernels& kernels, Size size)
    : device_(device), kernels_(kernels), size_(size), memory_(std::move(device)) {}

void Resizing::prepare(Size image) {
  if (image == image_) return;  // a camera's are all of one
  image_ = {};
  const ResizeTaps taps_across = resize_taps(image.width, size_.width);
  const ResizeTaps taps_down = resize_taps(image.height, size_.height);
  const std::vector<int> across = table(taps_across), down = table(taps_down);
  const auto height = static_cast<size_t>(image.height), width = static_cast<size_t>(image.width);
  down_ = aligned(bytes(across));
  pixels_ = aligned(down_ + bytes(down));
  scratch_ = aligned(pixels_ + height * width * 3);
  const size_t between = 3 * std::max(height * size_.width, width * size_.height);  // resized in one direction
  memory_.reserve(scratch_, scratch_ + between, text("resizing an image of ", image.height, "×", image.width));
  std::memcpy(memory_.pinned(), across.data(), bytes(across));
  std::memcpy(memory_.pinned() + down_, down.data(), bytes(down));
  across_width_ = taps_across.width;
  down_width_ = taps_down.width;
  image_ = image;
}

void Resizing::enqueue(const Frame& frame, CUdeviceptr out, CUstream stream) const {
  const auto height = static_cast<size_t>(image_.height), row = static_cast<size_t>(image_.width) * 3;
  const CUdeviceptr place = memory_.place();
  if (frame.device_stride) {
    copy(*device_, place, address(memory_.pinned()), pixels_, stream);
    copy_rows(*device_, {reinterpret_cast<void*>(place + pixels_), row, true},
              {const_cast<uint8_t*>(frame.pixels), frame.device_stride, true}, row, height, stream);
  } else {
    std::memcpy(memory_.pinned() + pixels_, frame.pixels, height * row);
    copy(*device_, place, address(memory_.pinned()), pixels_ + height * row, stream);
  }
  dovit_resize_args call{};
  call.image = At{place + pixels_};
  call.height = image_.height;
  call.width = image_.width;
  call.out = At{out};
  call.out_height = size_.height;
  call.out_width = size_.width;
  call.across = At{place};
  call.across_width = across_width_;
  call.down = At{place + down_};
  call.down_width = down_width_;
  call.scratch = At{place + scratch_};
  kernels_.resize(call, stream);
}

}  // namespace dovit::runtime
