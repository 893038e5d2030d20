// After a decision: kept tokens are compacted, stopping ones go to the full sequence and into the class token.
//
// One pass over the tokens. A thread owns some channels and walks down the tokens of a tile, so every token is read
// once, its kept copy or its place in `full` is written once, and the thread has the sum of what stopped in the tile at
// the end, added in order of position. A second, small pass adds the tiles' sums, in order as well, and so the result
// is the same every time.
#pragma once

#include <cstdint>

#include "decide.h"
#include "pack.h"

namespace dovit {

constexpr int kTileTokens = 64;  // the tiles' sums are then 3 % of the bytes of half-precision tokens

DOVIT_HD int tile_count(int count) { return (count + kTileTokens - 1) / kTileTokens; }

// Sizes and memory of one gather; pointers as in launch.h.
template <class T>
struct Gather {
  int count, capacity, prefix, channels, positions;
  const T* tokens;
  const int* index;
  const int* slots;
  T* kept;
  int* kept_index;
  T* full;
  float* tile_sums;
};

// Channels `column` … `column` + kCount of the tokens of one tile of one image.
template <class T, int kCount>
DOVIT_HD void gather_column(const Gather<T>& g, int image, int tile, int column) {
  using P = Pack<T, kCount>;
  float sums[kCount] = {};
  const int end = g.count < (tile + 1) * kTileTokens ? g.count : (tile + 1) * kTileTokens;
  const T* row = g.tokens + (size_t(image) * (g.prefix + g.count) + g.prefix) * g.channels + column;
  for (int token = tile * kTileTokens; token < end; ++token) {
    const P pack = *reinterpret_cast<const P*>(row + size_t(token) * g.channels);
    const int slot = g.slots[size_t(image) * g.count + token], position = g.index[size_t(image) * g.count + token];
    if (slot != kStopped) {
      T* place = g.kept + (size_t(image) * (g.prefix + g.capacity) + g.prefix + slot) * g.channels + column;
      *reinterpret_cast<P*>(place) = pack;
      if (column == 0) g.kept_index[size_t(image) * g.capacity + slot] = position;
    } else {
      *reinterpret_cast<P*>(g.full + (size_t(image) * g.positions + position) * g.channels + column) = pack;
      for (int k = 0; k < kCount; ++k) sums[k] += to_float(pack.values[k]);
    }
  }
  float* place = g.tile_sums + (size_t(image) * tile_count(g.count) + tile) * g.channels + column;
  for (int k = 0; k < kCount; ++k) place[k] = sums[k];
}

// One channel of one image: the sum of all that has stopped, and the prefix tokens, of which the first is the class
// token: T₀ ← ½ (T₀ + mean of all tokens stopped so far) (8). How many those are is
// known to all threads and written by one, to another place than they read it from.
template <class T>
DOVIT_HD void merge_channel(const Gather<T>& g, int image, int channel, const float* sum_before, float* sum_after,
                            const int64_t* stopped_before, int64_t* stopped_after) {
  const int64_t stopped = *stopped_before + g.count - g.capacity;
  if (image == 0 && channel == 0) *stopped_after = stopped;
  float sum = sum_before[size_t(image) * g.channels + channel];
  const int tiles = tile_count(g.count);
#ifdef __CUDA_ARCH__
#pragma unroll 8  // several loads under way at a time
#endif
  for (int tile = 0; tile < tiles; ++tile) sum += g.tile_sums[(size_t(image) * tiles + tile) * g.channels + channel];
  sum_after[size_t(image) * g.channels + channel] = sum;
  for (int token = 0; token < g.prefix; ++token) {
    T value = g.tokens[(size_t(image) * (g.prefix + g.count) + token) * g.channels + channel];
    if (token == 0 && stopped > 0) value = from_float<T>(0.5f * (to_float(value) + sum / static_cast<float>(stopped)));
    g.kept[(size_t(image) * (g.prefix + g.capacity) + token) * g.channels + channel] = value;
  }
}

}  // namespace dovit
