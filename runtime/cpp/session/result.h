// The result of segmenting an image: see runtime/result.py.
#pragma once

#include "chain/executor.h"
#include "image/pixels.h"

namespace dovit::runtime {

struct Corner {
  int y = 0, x = 0;
};

// In `slide` mode the decisions are those of the windows, one after the other.
struct Result {
  Tensor labels;                    // [H, W] uint8, int16 with more than 256 classes; empty where the caller has them
  std::vector<int64_t> kept;        // tokens kept after each decision; slide: summed over the windows
  int64_t tokens = 0;               // N; slide: times the windows
  Tensor keep_maps;                 // [windows, D, h, w] uint8, 0 or 1
  Tensor confidence_maps;           // [windows, D, h, w] float32, NaN where already stopped
  Tensor logits;                    // [C, h', w'] float32 at the decoder's resolution; slide: merged [C, H, W]
  Size filled;                      // what the image fills of the bundle's size, from the top left; the rest is padding
  std::vector<Corner> corners{{}};  // of the windows, in the (possibly enlarged) image
};

}  // namespace dovit::runtime
