// The resize and normalise kernels' logic for the host.
#include <algorithm>

#include "pixels.h"
#include "resize_taps.h"

namespace {

dovit::Taps view(const dovit::ResizeTaps& taps) {
  return {taps.width, taps.first.data(), taps.count.data(), taps.weights.data()};
}

}  // namespace

namespace {

// One direction, as the kernel's grid goes over it: `rows` rows of `to_width` pixels.
void resize(const uint8_t* from, uint8_t* to, const dovit::Taps& taps, int from_width, int to_width, int rows,
            bool down) {
  const size_t from_row = size_t(from_width) * 3, to_row = size_t(to_width) * 3;
  for (int y = 0; y < rows; ++y)
    for (size_t at = 0; at < to_row; ++at)
      to[y * to_row + at] = down ? dovit::resized_byte(from + at, from_row, taps, y, dovit::kWeightBits)
                                 : dovit::resized_byte(from + y * from_row + at % 3, 3, taps, static_cast<int>(at / 3),
                                                       dovit::kWeightBits);
}

}  // namespace

extern "C" void host_resize(const uint8_t* image, int height, int width, uint8_t* out, int out_height, int out_width) {
  const dovit::ResizeTaps across = dovit::resize_taps(width, out_width), down = dovit::resize_taps(height, out_height);
  std::vector<uint8_t> between(3 * std::max(size_t(height) * out_width, size_t(out_height) * width));
  if (dovit::goes_down_first(height, width, out_height, out_width)) {
    resize(image, between.data(), view(down), width, width, out_height, true);
    resize(between.data(), out, view(across), width, out_width, out_height, false);
  } else {
    resize(image, between.data(), view(across), width, out_width, height, false);
    resize(between.data(), out, view(down), out_width, out_width, out_height, true);
  }
}

extern "C" void host_normalise(const uint8_t* pixels, float* out, int area, const float* mean, const float* deviation) {
  const dovit::Normalisation n{{mean[0], mean[1], mean[2]}, {deviation[0], deviation[1], deviation[2]}};
  for (int channel = 0; channel < 3; ++channel)
    for (int pixel = 0; pixel < area; ++pixel)
      out[size_t(channel) * area + pixel] = dovit::normalised<float>(pixels, pixel, channel, n);
}
