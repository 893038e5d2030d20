#include "image/resize.h"

#include <algorithm>
#include <cmath>

#include "resize_taps.h"

namespace dovit::runtime {

namespace {

uint8_t rounded(int sum) { return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255)); }

// [H, W, 3] → [H, w, 3]
std::vector<uint8_t> resized_across(const uint8_t* from, Size size, int width) {
  const ResizeTaps taps = resize_taps(size.width, width);
  std::vector<uint8_t> out(static_cast<size_t>(size.height) * width * 3);
  uint8_t* to = out.data();
  for (int y = 0; y < size.height; ++y, from += static_cast<size_t>(size.width) * 3)
    for (int x = 0; x < width; ++x, to += 3) {
      const int* weights = taps.weights.data() + static_cast<size_t>(x) * taps.width;
      const uint8_t* pixel = from + static_cast<size_t>(taps.first[x]) * 3;
      int red = 1 << (kWeightBits - 1), green = red, blue = red;
      for (int k = 0; k < taps.count[x]; ++k, pixel += 3) {
        red += pixel[0] * weights[k];
        green += pixel[1] * weights[k];
        blue += pixel[2] * weights[k];
      }
      to[0] = rounded(red);
      to[1] = rounded(green);
      to[2] = rounded(blue);
    }
  return out;
}

// [H, W, 3] → [h, W, 3]: a row at a time, so that the inner loop runs over neighbours.
std::vector<uint8_t> resized_down(const uint8_t* from, Size size, int height) {
  const ResizeTaps taps = resize_taps(size.height, height);
  const size_t row = static_cast<size_t>(size.width) * 3;
  std::vector<uint8_t> out(row * height);
  std::vector<int> sums(row);
  for (int y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kWeightBits - 1));
    for (int k = 0; k < taps.count[y]; ++k) {
      const int weight = taps.weights[static_cast<size_t>(y) * taps.width + k];
      const uint8_t* bytes = from + (taps.first[y] + k) * row;
      for (size_t x = 0; x < row; ++x) sums[x] += bytes[x] * weight;
    }
    std::transform(sums.begin(), sums.end(), out.begin() + y * row, rounded);
  }
  return out;
}

}  // namespace

Pixels resized(const Pixels& image, Size size) {
  const Size from = image.size();
  if (from == size) return Pixels(image.data(), size);
  if (from.width == size.width) return {resized_down(image.data(), from, size.height), size};
  if (from.height == size.height) return {resized_across(image.data(), from, size.width), size};
  if (goes_down_first(from.height, from.width, size.height, size.width)) {
    const std::vector<uint8_t> between = resized_down(image.data(), from, size.height);
    return {resized_across(between.data(), {size.height, from.width}, size.width), size};
  }
  const std::vector<uint8_t> between = resized_across(image.data(), from, size.width);
  return {resized_down(between.data(), {from.height, size.width}, size.height), size};
}

Size fitted_size(Size image, Size window) {
  const double scale =
      std::min(static_cast<double>(window.height) / image.height, static_cast<double>(window.width) / image.width);
  const auto side = [scale](int length, int most) {
    return std::min(most, std::max(1, static_cast<int>(length * scale + 0.5)));
  };
  return {side(image.height, window.height), side(image.width, window.width)};
}

Pixels padded(Pixels image, Size size, const std::array<double, 3>& fill) {
  const Size inside = image.size();
  if (inside == size) return image;
  uint8_t colour[3];
  for (int k = 0; k < 3; ++k) colour[k] = static_cast<uint8_t>(std::clamp(std::nearbyint(fill[k]), 0.0, 255.0));
  std::vector<uint8_t> out(static_cast<size_t>(size.height) * size.width * 3);
  for (size_t k = 0; k < out.size(); ++k) out[k] = colour[k % 3];
  const size_t row = static_cast<size_t>(inside.width) * 3;
  for (int y = 0; y < inside.height; ++y)
    std::copy_n(image.data() + y * row, row, out.begin() + static_cast<std::ptrdiff_t>(y) * size.width * 3);
  return {std::move(out), size};
}

}  // namespace dovit::runtime
