// Kept tokens go back to their positions in the full sequence; prefix tokens are dropped.
#pragma once

#include "pack.h"

namespace dovit {

// Loaded by a thread before it stores the first: one pack of sixteen bytes a thread is 32 KB in a full multiprocessor,
// which is just what an H200's memory needs under way; four leave room for multiprocessors that are not full.
constexpr int kPacksAhead = 4;

// Packs first, first + step, … (kPacksAhead of them) of one image, counted through its tokens: tokens [batch, prefix +
// count, channels], full [batch, positions, channels].
template <class T, int kCount>
DOVIT_HD void reconstruct_packs(const T* tokens, const int* index, T* full, int image, int first, int step, int count,
                                int prefix, int positions, int channels) {
  using P = Pack<T, kCount>;
  const int packs = channels / kCount, end = count * packs;
  const P* from = reinterpret_cast<const P*>(tokens) + (size_t(image) * (prefix + count) + prefix) * packs;
  P* to = reinterpret_cast<P*>(full) + size_t(image) * positions * packs;
  P ahead[kPacksAhead];
  int position[kPacksAhead];
  DOVIT_UNROLL
  for (int k = 0; k < kPacksAhead; ++k) {
    const int pack = first + k * step < end ? first + k * step : first;  // the first once more rather than a branch
    ahead[k] = from[pack];
    position[k] = index[size_t(image) * count + pack / packs];
  }
  DOVIT_UNROLL
  for (int k = 0; k < kPacksAhead; ++k) {
    const int pack = first + k * step;
    if (pack < end) to[position[k] * packs + pack % packs] = ahead[k];
  }
}

}  // namespace dovit
