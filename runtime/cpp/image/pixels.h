// Images as the caller has them → uint8 [H, W, 3] RGB, rows without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dovit::runtime {

enum class Format { kRgb, kBgr, kRgba, kBgra, kGrey };

struct Size {
  int height = 0, width = 0;
  bool operator==(const Size& other) const { return height == other.height && width == other.width; }
};

// RGB pixels: the caller's own where they lie as they are wanted, on the host or a device, else a copy.
class Pixels {
 public:
  Pixels(const uint8_t* borrowed, Size size, size_t device_stride = 0)
      : size_(size), device_stride_(device_stride), data_(borrowed) {}
  Pixels(std::vector<uint8_t> owned, Size size) : size_(size), owned_(std::move(owned)), data_(owned_.data()) {}
  Pixels(Pixels&&) = default;  // a moved vector keeps its memory
  Pixels& operator=(Pixels&&) = default;

  const uint8_t* data() const { return data_; }
  Size size() const { return size_; }
  size_t device_stride() const { return device_stride_; }  // bytes from row to row in device memory; 0: on the host

 private:
  Size size_;
  size_t device_stride_ = 0;
  std::vector<uint8_t> owned_;
  const uint8_t* data_;
};

// `stride`: bytes from one row to the next. Alpha is dropped, grey is repeated.
Pixels rgb_pixels(const uint8_t* data, Size size, size_t stride, Format format);

// The part of an image that a window sees.
Pixels cropped(const Pixels& image, int y, int x, Size size);

int channels(Format format);

}  // namespace dovit::runtime
