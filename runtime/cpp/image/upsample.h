// Bilinear resizing of logits as torch does it with align_corners=False, with the roundings of runtime/resize.py:
// products of two small matrices there, whose rows have one or two weights that are not zero.
#pragma once

#include <vector>

#include "image/pixels.h"

namespace dovit::runtime {

// Row k of the matrix: low[k] · x[from[k]] + high[k] · x[from[k] + 1], or the first product alone where high[k] is 0.
struct Interpolation {
  std::vector<int> from;
  std::vector<float> low, high;
};

Interpolation interpolation(int source, int target);

// float32 [C, h, w] → its values at a larger size, row by row.
class Upsampler {
 public:
  Upsampler(const float* logits, int classes, Size from, Size to);

  // Row `y` of every class: [C, W]. Valid until the next call.
  const float* row(int y);

 private:
  const float* across(int source_row);

  const float* logits_;
  const int classes_;
  const Size from_, to_;
  const Interpolation down_, across_;
  std::vector<float> made_, cache_[2];
  int cached_[2] = {-1, -1};
};

// float32 [C, h, w] → classes [H, W], the lowest on a tie, written as uint8 or int16 into rows `stride` bytes apart.
void labels_from_logits(const float* logits, int classes, Size from, Size to, void* labels, size_t stride,
                        int label_bytes);

}  // namespace dovit::runtime
