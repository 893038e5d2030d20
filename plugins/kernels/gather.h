// After a decision: kept tokens are compacted, stopping ones go to the full sequence and, with merging, into the class
// token. cells.h merges them by cell instead.
//
// One pass over the tokens. A thread owns some channels and walks down the tokens of a tile, so every token is read
// once, its kept copy or its place in `full` is written once, and the thread has the sum of what stopped in the tile at
// the end, added in order of position. A second, small pass adds the tiles' sums, in order as well, and so the result
// is the same every time.
//
// Both passes load several tokens ahead before they use the first. The compiler may not do so by itself: a store to
// `kept` or `full` could, for all it knows, change the next token, and one load at a time leaves the memory waiting.
#pragma once

#include <cstdint>

#include "decide.h"
#include "pack.h"

namespace dovit {

constexpr int kTileTokens = 64;  // the tiles' sums are then 3 % of the bytes of half-precision tokens

// Eight bytes a thread and token, eight tokens ahead: at batch 1 there are about as many tiles as multiprocessors, and
// this has twice as much under way in each as sixteen bytes, of which only four tokens fit 64 registers.
template <class T>
constexpr int kGatherCount = 8 / static_cast<int>(sizeof(T));
constexpr int kTokensAhead = 8;
constexpr int kTilesAhead = 12;  // sums of tiles, for which the same 64 registers have room on every architecture

DOVIT_HD int tile_count(int count) { return (count + kTileTokens - 1) / kTileTokens; }

// Sizes and memory of one gather; pointers as in launch.h. An image's tokens have less than 2³¹ elements, so offsets
// within an image are ints, which take half the registers.
template <class T>
struct Gather {
  int count, capacity, prefix, channels, positions;
  int cells;  // merged tokens of cells, the last of the prefix tokens
  const T* tokens;
  const int* index;
  const int* slots;
  T* kept;
  int* kept_index;
  T* full;
  float* tile_sums;         // null: no merging into the class token
  const int* actual_count;  // null, or how many tokens came where only the device knows, at most `count`
};

template <class T>
DOVIT_HD Gather<T> settled(Gather<T> g) {
  if (g.actual_count) g.count = *g.actual_count;
  return g;
}

// Channels `column` … `column` + kCount of kTokens tokens from `first` on: all are loaded before any is used.
template <class T, int kCount, int kTokens>
DOVIT_HD void gather_tokens(const Gather<T>& g, int image, int first, int column, float* sums) {
  using P = Pack<T, kCount>;
  P packs[kTokens];
  int slots[kTokens], positions[kTokens];
  const size_t row = size_t(image) * g.count + first;
  const T* tokens = g.tokens + (row + size_t(image + 1) * g.prefix) * g.channels + column;
  DOVIT_UNROLL
  for (int k = 0; k < kTokens; ++k) {
    packs[k] = *reinterpret_cast<const P*>(tokens + k * g.channels);
    slots[k] = g.slots[row + k];
    positions[k] = g.index[row + k];
  }
  T* kept = g.kept + (size_t(image) * (g.prefix + g.capacity) + g.prefix) * g.channels + column;
  T* full = g.full + size_t(image) * g.positions * g.channels + column;
  DOVIT_UNROLL
  for (int k = 0; k < kTokens; ++k) {
    if (slots[k] != kStopped) {
      *reinterpret_cast<P*>(kept + slots[k] * g.channels) = packs[k];
      if (column == 0) g.kept_index[size_t(image) * g.capacity + slots[k]] = positions[k];
    } else {
      *reinterpret_cast<P*>(full + positions[k] * g.channels) = packs[k];
      for (int e = 0; e < kCount; ++e) sums[e] += to_float(packs[k].values[e]);
    }
  }
}

// Channels `column` … `column` + kCount of the tokens of one tile of one image.
template <class T, int kCount>
DOVIT_HD void gather_column(const Gather<T>& g, int image, int tile, int column) {
  if (tile >= tile_count(g.count)) return;  // the launch allowed for more tokens than came
  float sums[kCount] = {};
  const int end = g.count < (tile + 1) * kTileTokens ? g.count : (tile + 1) * kTileTokens;
  int token = tile * kTileTokens;
  for (; token + kTokensAhead <= end; token += kTokensAhead)
    gather_tokens<T, kCount, kTokensAhead>(g, image, token, column, sums);
  for (; token < end; ++token) gather_tokens<T, kCount, 1>(g, image, token, column, sums);
  if (!g.tile_sums) return;
  float* place = g.tile_sums + (size_t(image) * tile_count(g.count) + tile) * g.channels + column;
  for (int e = 0; e < kCount; ++e) place[e] = sums[e];
}

// One channel of one image: the sum of all that has stopped, and the prefix tokens but for those of cells. The first is
// the class token: T₀ ← ½ (T₀ + mean of all tokens stopped so far) (8), with merging. How many those are is
// known to all threads and written by one, to another place than they read it from.
template <class T>
DOVIT_HD void merge_channel(const Gather<T>& g, int image, int channel, const float* sum_before, float* sum_after,
                            const int64_t* stopped_before, int64_t* stopped_after) {
  const int64_t stopped = *stopped_before + g.count - g.capacity;
  if (image == 0 && channel == 0) *stopped_after = stopped;
  float sum = sum_before ? sum_before[size_t(image) * g.channels + channel] : 0.0f;
  const int tiles = sum_before ? tile_count(g.count) : 0;
  const float* sums = g.tile_sums + size_t(image) * tiles * g.channels + channel;
  for (int first = 0; first < tiles; first += kTilesAhead) {
    float ahead[kTilesAhead];
    DOVIT_UNROLL
    for (int k = 0; k < kTilesAhead; ++k) ahead[k] = first + k < tiles ? sums[(first + k) * g.channels] : 0.0f;
    DOVIT_UNROLL
    for (int k = 0; k < kTilesAhead; ++k) sum += ahead[k];
  }
  if (sum_before) sum_after[size_t(image) * g.channels + channel] = sum;
  for (int token = 0; token < g.prefix - g.cells; ++token) {
    T value = g.tokens[(size_t(image) * (g.prefix + g.count) + token) * g.channels + channel];
    if (token == 0 && stopped > 0 && sum_before)
      value = from_float<T>(0.5f * (to_float(value) + sum / static_cast<float>(stopped)));
    g.kept[(size_t(image) * (g.prefix + g.capacity) + token) * g.channels + channel] = value;
  }
}

}  // namespace dovit
