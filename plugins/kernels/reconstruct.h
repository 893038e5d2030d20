// Kept tokens go back to their positions in the full sequence; prefix tokens are dropped.
#pragma once

#include "pack.h"

namespace dovit {

// Channels `column` … `column` + kCount of one token: tokens [batch, prefix + count, channels], full [batch, positions,
// channels].
template <class T, int kCount>
DOVIT_HD void reconstruct_pack(const T* tokens, const int* index, T* full, int image, int token, int column, int count,
                               int prefix, int positions, int channels) {
  using P = Pack<T, kCount>;
  const int position = index[size_t(image) * count + token];
  const T* from = tokens + (size_t(image) * (prefix + count) + prefix + token) * channels + column;
  T* to = full + (size_t(image) * positions + position) * channels + column;
  *reinterpret_cast<P*>(to) = *reinterpret_cast<const P*>(from);
}

}  // namespace dovit
