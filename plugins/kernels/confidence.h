// A token's confidence: the largest class probability, max_c softmax(logits)[c] (2), (3).
//
// That is 1 / Σ_c exp(x_c − max x), so no probability is ever written down. One reading of the classes finds both: when
// a larger value comes along, the sum so far is scaled down to it. Several classes are loaded before any is used, and a
// token with many has several threads, each for a slice of them; what two slices found is joined by the same rule.
// Logits are [batch, classes, count], as the heads leave them, so neighbouring threads read neighbouring tokens.
#pragma once

#include <stddef.h>

#include <cfloat>
#include <cmath>

#include "pack.h"

namespace dovit {

constexpr int kClassesAhead = 16;
constexpr int kMaxSlices = 8;

// Σ exp(x − largest) over some of a token's classes.
struct Exponentials {
  float largest, sum;
};

DOVIT_HD Exponentials joined(const Exponentials& a, const Exponentials& b) {
  const float largest = b.largest > a.largest ? b.largest : a.largest;
  return {largest, a.sum * expf(a.largest - largest) + b.sum * expf(b.largest - largest)};
}

// Of classes first … end, whose logits lie `stride` elements apart.
template <class T>
DOVIT_HD Exponentials exponentials_of(const T* logits, int first, int end, size_t stride) {
  Exponentials so_far{-FLT_MAX, 0.0f};  // the lowest float and not −∞, so that no difference is one of infinities
  for (; first < end; first += kClassesAhead) {
    float ahead[kClassesAhead];
    DOVIT_UNROLL
    for (int k = 0; k < kClassesAhead; ++k)
      ahead[k] = first + k < end ? to_float(logits[(first + k) * stride]) : -INFINITY;
    float largest = so_far.largest;
    DOVIT_UNROLL
    for (int k = 0; k < kClassesAhead; ++k)
      if (ahead[k] > largest) largest = ahead[k];
    so_far.sum *= expf(so_far.largest - largest);
    DOVIT_UNROLL
    for (int k = 0; k < kClassesAhead; ++k) so_far.sum += expf(ahead[k] - largest);
    so_far.largest = largest;
  }
  return so_far;
}

// A NaN or +∞ among the logits, or nothing but −∞, makes it NaN, and a NaN keeps.
DOVIT_HD float confidence_of(const Exponentials& all) { return all.sum > 0.0f ? 1.0f / all.sum : NAN; }

// Slices of so many classes each; how many slices follows from that.
DOVIT_HD int slice_size(int classes) {
  const int size = (classes + kMaxSlices - 1) / kMaxSlices;
  return size < kClassesAhead ? kClassesAhead : size;
}

}  // namespace dovit
