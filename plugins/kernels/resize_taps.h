// The weights by which Pillow resizes bilinearly: each output pixel is the mean of the input pixels under a triangle,
// which is as wide as the image shrinks. Computed once for a pair of sizes, on the host.
#pragma once

#include <cmath>
#include <vector>

namespace dovit {

constexpr int kWeightBits = 22;  // of fraction; a sum of weighted bytes then just fits 32 bits

// For output pixel p: weights[p * width … ] of `count[p]` input pixels from `first[p]` on.
struct ResizeTaps {
  int width;
  std::vector<int> first, count, weights;
};

inline ResizeTaps resize_taps(int source, int target) {
  const double scale = static_cast<double>(source) / target, spread = scale < 1.0 ? 1.0 : scale;
  ResizeTaps taps;
  taps.width = static_cast<int>(std::ceil(spread)) * 2 + 1;
  taps.weights.assign(static_cast<size_t>(target) * taps.width, 0);
  std::vector<double> row(taps.width);
  for (int pixel = 0; pixel < target; ++pixel) {
    const double center = (pixel + 0.5) * scale;
    const double begin = center - spread + 0.5, end = center + spread + 0.5;
    const int first = begin < 0.0 ? 0 : static_cast<int>(begin);
    const int last = end > source ? source : static_cast<int>(end);
    double sum = 0.0;
    for (int k = 0; k < last - first; ++k) {
      const double distance = std::fabs((k + first - center + 0.5) / spread);
      row[k] = distance < 1.0 ? 1.0 - distance : 0.0;
      sum += row[k];
    }
    for (int k = 0; k < last - first; ++k) {
      const double weight = sum != 0.0 ? row[k] / sum : row[k];
      taps.weights[static_cast<size_t>(pixel) * taps.width + k] = static_cast<int>(0.5 + weight * (1 << kWeightBits));
    }
    taps.first.push_back(first);
    taps.count.push_back(last - first);
  }
  return taps;
}

// The bytes between the two directions are rounded, so their order shows. This is Pillow's, found by trying sizes.
inline bool goes_down_first(int height, int width, int out_height, int out_width) {
  return out_height < height && height - out_height > 2 * (width - out_width);
}

}  // namespace dovit
