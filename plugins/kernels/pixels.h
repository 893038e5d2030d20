// An image as the model wants it: resized as Pillow does it, across and then down, rounded to bytes after each; then
// normalised.
#pragma once

#include <stddef.h>

#include <cstdint>

#include "pack.h"

namespace dovit {

// The weights of one direction, as ResizeTaps has them.
struct Taps {
  int width;
  const int *first, *count, *weights;
};

// One byte of an output pixel from the bytes that lie `stride` apart.
DOVIT_HD uint8_t resized_byte(const uint8_t* bytes, size_t stride, const Taps& taps, int pixel, int weight_bits) {
  const int* weights = taps.weights + size_t(pixel) * taps.width;
  const uint8_t* from = bytes + taps.first[pixel] * stride;
  int sum = 1 << (weight_bits - 1);
  for (int k = 0; k < taps.count[pixel]; ++k) sum += from[k * stride] * weights[k];
  const int value = sum >> weight_bits;
  return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

struct Normalisation {
  float mean[3], deviation[3];
};

// Pixels [height, width, 3] → channel `channel` of [3, height, width] at `pixel`, a position in height·width.
template <class T>
DOVIT_HD T normalised(const uint8_t* pixels, size_t pixel, int channel, const Normalisation& n) {
  return from_float<T>((static_cast<float>(pixels[pixel * 3 + channel]) - n.mean[channel]) / n.deviation[channel]);
}

}  // namespace dovit
