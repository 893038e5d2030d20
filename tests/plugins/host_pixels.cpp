// The resize and normalise kernels' logic for the host.
#include "pixels.h"
#include "resize_taps.h"

namespace {

dovit::Taps view(const dovit::ResizeTaps& taps) {
  return {taps.width, taps.first.data(), taps.count.data(), taps.weights.data()};
}

}  // namespace

extern "C" void host_resize(const uint8_t* image, int height, int width, uint8_t* out, int out_height, int out_width) {
  const dovit::ResizeTaps across = dovit::resize_taps(width, out_width), down = dovit::resize_taps(height, out_height);
  const size_t row = size_t(out_width) * 3;
  std::vector<uint8_t> between(size_t(height) * row);
  for (int y = 0; y < height; ++y)
    for (size_t at = 0; at < row; ++at)
      between[y * row + at] = dovit::resized_byte(image + size_t(y) * width * 3 + at % 3, 3, view(across),
                                                  static_cast<int>(at / 3), dovit::kWeightBits);
  for (int y = 0; y < out_height; ++y)
    for (size_t at = 0; at < row; ++at)
      out[y * row + at] = dovit::resized_byte(between.data() + at, row, view(down), y, dovit::kWeightBits);
}

extern "C" void host_normalise(const uint8_t* pixels, float* out, int area, const float* mean, const float* deviation) {
  const dovit::Normalisation n{{mean[0], mean[1], mean[2]}, {deviation[0], deviation[1], deviation[2]}};
  for (int channel = 0; channel < 3; ++channel)
    for (int pixel = 0; pixel < area; ++pixel)
      out[size_t(channel) * area + pixel] = dovit::normalised<float>(pixels, pixel, channel, n);
}
