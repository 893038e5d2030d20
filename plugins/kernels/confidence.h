// A token's confidence: the largest class probability, max_c softmax(logits)[c] (2), (3).
//
// That is 1 / Σ_c exp(x_c − max x), so no probability is ever written down. One reading of the classes finds both: when
// a larger value comes along, the sum so far is scaled down to it. Logits are [batch, classes, count], as the heads
// leave them, so neighbouring threads read neighbouring tokens.
#pragma once

#include <cmath>

#include "pack.h"

namespace dovit {

// The confidence of one token, whose logits lie `stride` elements apart. A NaN among them makes it NaN, and a NaN
// keeps.
template <class T>
DOVIT_HD float confidence_of(const T* logits, int classes, size_t stride) {
  float largest = to_float(logits[0]), sum = 1.0f;
  for (int c = 1; c < classes; ++c) {
    const float value = to_float(logits[c * stride]);
    if (value > largest) {
      sum = sum * expf(largest - value) + 1.0f;
      largest = value;
    } else {
      sum += value == largest ? 1.0f : expf(value - largest);  // two infinities differ by nothing
    }
  }
  return largest == -INFINITY ? NAN : 1.0f / sum;
}

}  // namespace dovit
