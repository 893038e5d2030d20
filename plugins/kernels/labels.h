// Labels from logits: bilinear upsampling by a whole number (corners not aligned) and argmax in one step. The logits at
// full size, a hundred times the labels' bytes, are never written.
#pragma once

#include "pack.h"

namespace dovit {

// Where an upsampled row or column reads: two neighbours, and the share of the second.
struct Neighbours {
  int first, second;
  float share;
};

// Position `at` of `size`·`scale` in `size`; PyTorch's interpolate with align_corners=False.
DOVIT_HD Neighbours neighbours(int at, int size, int scale) {
  const float place = (static_cast<float>(at) + 0.5f) / static_cast<float>(scale) - 0.5f;
  const float clamped = place < 0.0f ? 0.0f : place;
  const int first = static_cast<int>(clamped);
  return {first, first + 1 < size ? first + 1 : first, clamped - static_cast<float>(first)};
}

// The label of one pixel: the first class with the largest value. Logits of one image [classes, height, width].
template <class T>
DOVIT_HD int label_of(const T* logits, int classes, int height, int width, const Neighbours& y, const Neighbours& x) {
  const size_t map = size_t(height) * width;
  const size_t top = size_t(y.first) * width, bottom = size_t(y.second) * width;
  int label = 0;
  float largest = 0.0f;
#ifdef __CUDA_ARCH__
#pragma unroll 2  // more classes at a time take more registers than the loads in flight are worth
#endif
  for (int c = 0; c < classes; ++c) {
    const T* values = logits + c * map;
    const float above = to_float(values[top + x.first]) * (1.0f - x.share) + to_float(values[top + x.second]) * x.share;
    const float below =
        to_float(values[bottom + x.first]) * (1.0f - x.share) + to_float(values[bottom + x.second]) * x.share;
    const float value = above * (1.0f - y.share) + below * y.share;
    if (c == 0 || value > largest) {
      largest = value;
      label = c;
    }
  }
  return label;
}

}  // namespace dovit
