#include "image/pixels.h"

#include <cstring>

namespace dovit::runtime {

namespace {

// Channels red, green and blue of pixels with `kChannels` bytes each.
template <int kChannels, int kRed, int kGreen, int kBlue>
void convert(const uint8_t* from, uint8_t* to, int width) {
  for (int x = 0; x < width; ++x, from += kChannels, to += 3) {
    to[0] = from[kRed];
    to[1] = from[kGreen];
    to[2] = from[kBlue];
  }
}

void convert_row(const uint8_t* from, uint8_t* to, int width, Format format) {
  switch (format) {
    case Format::kRgb:
      std::memcpy(to, from, static_cast<size_t>(width) * 3);
      break;
    case Format::kBgr:
      convert<3, 2, 1, 0>(from, to, width);
      break;
    case Format::kRgba:
      convert<4, 0, 1, 2>(from, to, width);
      break;
    case Format::kBgra:
      convert<4, 2, 1, 0>(from, to, width);
      break;
    case Format::kGrey:
      convert<1, 0, 0, 0>(from, to, width);
      break;
  }
}

}  // namespace

int channels(Format format) {
  switch (format) {
    case Format::kGrey:
      return 1;
    case Format::kRgb:
    case Format::kBgr:
      return 3;
    default:
      return 4;
  }
}

Pixels rgb_pixels(const uint8_t* data, Size size, size_t stride, Format format) {
  const size_t row = static_cast<size_t>(size.width) * 3;
  if (format == Format::kRgb && stride == row) return Pixels(data, size);
  std::vector<uint8_t> made(row * size.height);  // [H, W, 3]
  for (int y = 0; y < size.height; ++y) convert_row(data + y * stride, made.data() + y * row, size.width, format);
  return Pixels(std::move(made), size);
}

Pixels cropped(const Pixels& image, int y, int x, Size size) {
  const size_t from_row = static_cast<size_t>(image.size().width) * 3, to_row = static_cast<size_t>(size.width) * 3;
  if (image.size() == size) return Pixels(image.data(), size);
  std::vector<uint8_t> made(to_row * size.height);  // [h, w, 3]
  for (int row = 0; row < size.height; ++row)
    std::memcpy(made.data() + row * to_row, image.data() + (y + row) * from_row + static_cast<size_t>(x) * 3, to_row);
  return Pixels(std::move(made), size);
}

}  // namespace dovit::runtime
