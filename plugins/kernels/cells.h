// Merging by cell: stopping tokens go into the merged token R of their cell of the grid of patches,
// R ← (n R + sum of the cell's tokens that stop) / (n + how many those are), where n tokens of it had stopped before.
//
// A block has one cell and some of the channels. Each of its threads first looks up one position of the cell in the
// ascending list of positions: whether its token is left, and stops. Then each thread adds its channels of the tokens
// that stop, in order of position, so the result is the same every time.
#pragma once

#include "decide.h"
#include "gather.h"

namespace dovit {

constexpr int kCellThreads = 128;  // positions of a cell looked up at once; larger cells take several rounds
constexpr int kCellAhead = 4;      // tokens loaded ahead: eight take 80 registers on some architectures

// What a thread finds at a position: the row of a token that stops, 0 or more, or one of these.
constexpr int kStays = -1, kNotLeft = -2;

// Cells of `side`×`side` patches on a grid that is `columns` wide; side 0: there are none.
struct CellGrid {
  int side, columns;

  DOVIT_HD int across() const { return (columns + side - 1) / side; }
  DOVIT_HD int count(int positions) const { return side == 0 ? 0 : (positions / columns + side - 1) / side * across(); }
};

// One cell: the last ones of a row or column may be smaller.
struct Cell {
  int first, width, size, columns;  // the position at its upper left corner, patches in a row, patches, grid's width

  DOVIT_HD int position(int number) const { return first + number / width * columns + number % width; }
};

DOVIT_HD Cell cell_at(const CellGrid& grid, int positions, int number) {
  const int row = number / grid.across() * grid.side, column = number % grid.across() * grid.side;
  const int rows = positions / grid.columns;
  const int height = rows - row < grid.side ? rows - row : grid.side;
  const int width = grid.columns - column < grid.side ? grid.columns - column : grid.side;
  return {row * grid.columns + column, width, height * width, grid.columns};
}

// What lies at a position: `index` and `slots` are of one image's `count` tokens.
DOVIT_HD int found_at(const int* index, const int* slots, int count, int position) {
  const int row = slot_in(index, count, position);
  if (row == kStopped) return kNotLeft;
  return slots[row] == kStopped ? row : kStays;
}

// Sums of kCount channels, and how many of a cell's tokens are left and how many of those stop.
template <int kCount>
struct CellSums {
  float sums[kCount] = {};
  int left = 0, stopping = 0;
};

// Adds the tokens at `found` [count]; `tokens` are the first patch's channels that the thread has.
template <class T, int kCount>
DOVIT_HD void add_found(const T* tokens, int channels, const int* found, int count, CellSums<kCount>& into) {
  using P = Pack<T, kCount>;
  for (int first = 0; first < count; first += kCellAhead) {
    P packs[kCellAhead];
    int rows[kCellAhead];
    DOVIT_UNROLL
    for (int k = 0; k < kCellAhead; ++k) {
      rows[k] = first + k < count ? found[first + k] : kNotLeft;
      if (rows[k] >= 0) packs[k] = *reinterpret_cast<const P*>(tokens + rows[k] * channels);
    }
    DOVIT_UNROLL
    for (int k = 0; k < kCellAhead; ++k) {
      into.left += rows[k] != kNotLeft;
      if (rows[k] < 0) continue;
      ++into.stopping;
      for (int e = 0; e < kCount; ++e) into.sums[e] += to_float(packs[k].values[e]);
    }
  }
}

// The merged token of a cell, from `column` on.
template <class T, int kCount>
DOVIT_HD void write_merged(const Gather<T>& g, int image, int number, int size, int column,
                           const CellSums<kCount>& found) {
  const int before = size - found.left, after = before + found.stopping;
  const int place = g.prefix - g.cells + number;
  const T* old = g.tokens + (size_t(image) * (g.prefix + g.count) + place) * g.channels + column;
  T* merged = g.kept + (size_t(image) * (g.prefix + g.capacity) + place) * g.channels + column;
  for (int e = 0; e < kCount; ++e) {
    // where nothing had stopped, the merged token is no token's mean: whatever it holds is left out
    const float all = (before > 0 ? before * to_float(old[e]) : 0.0f) + found.sums[e];
    merged[e] = from_float<T>(all / static_cast<float>(after > 0 ? after : 1));
  }
}

}  // namespace dovit
