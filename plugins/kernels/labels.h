// Labels from logits: bilinear upsampling (corners not aligned) and argmax in one step. The logits at full size, a
// hundred times the labels' bytes, are never written.
//
// By a whole number, which is what a decoder is followed by:
//
// Four neighbouring logits span a cell of scale × scale pixels, whose values are means of the four. So a class that is
// the first of the largest at all four corners is so everywhere between, and a label map is mostly such cells: they
// need the corners' classes alone. Pixels of the other cells are interpolated one by one; a block puts these cells
// into a list first, so that no thread waits for a neighbour whose cell is mixed.
#pragma once

#include <stddef.h>

#include "pack.h"

namespace dovit {

constexpr int kTileColumns = 256;            // pixels of a row in one block
constexpr int kMaxCells = kTileColumns + 1;  // that those can touch

// Where an upsampled row or column reads: two neighbours, and the share of the second.
struct Neighbours {
  int first, second;
  float share;
};

// Position `at` of size/ratio in `size`; PyTorch's interpolate with align_corners=False.
DOVIT_HD Neighbours neighbours(int at, int size, float ratio) {
  const float place = ratio * (static_cast<float>(at) + 0.5f) - 0.5f;
  const float clamped = place < 0.0f ? 0.0f : place;
  const int first = static_cast<int>(clamped);
  return {first, first + 1 < size ? first + 1 : first, clamped - static_cast<float>(first)};
}

// The label of one pixel: the first class with the largest value. Logits of one image [classes, height, width].
template <class T>
DOVIT_HD int label_of(const T* logits, int classes, int height, int width, const Neighbours& y, const Neighbours& x) {
  const size_t map = size_t(height) * width;
  const size_t top = size_t(y.first) * width, bottom = size_t(y.second) * width;
  int label = 0;
  float largest = 0.0f;
#ifdef __CUDA_ARCH__
#pragma unroll 2  // more classes at a time take more registers than the loads in flight are worth
#endif
  for (int c = 0; c < classes; ++c) {
    const T* values = logits + c * map;
    const float above = to_float(values[top + x.first]) * (1.0f - x.share) + to_float(values[top + x.second]) * x.share;
    const float below =
        to_float(values[bottom + x.first]) * (1.0f - x.share) + to_float(values[bottom + x.second]) * x.share;
    const float value = above * (1.0f - y.share) + below * y.share;
    if (c == 0 || value > largest) {
      largest = value;
      label = c;
    }
  }
  return label;
}

// The first class with the largest logit at one position; a NaN is so only as the first class, as in label_of.
template <class T>
DOVIT_HD int largest_class(const T* logits, int classes, size_t map) {
  int label = 0;
  float largest = to_float(logits[0]);
#ifdef __CUDA_ARCH__
#pragma unroll 8
#endif
  for (int c = 1; c < classes; ++c) {
    const float value = to_float(logits[c * map]);
    if (value > largest) {
      largest = value;
      label = c;
    }
  }
  return label;
}

// Cells are numbered from the border on: number c lies between logits c − 1 and c, as far as those exist.
DOVIT_HD int cell_of(int pixel, int scale) { return (pixel + (scale + 1) / 2) / scale; }
DOVIT_HD int first_pixel(int cell, int scale) { return cell * scale - (scale + 1) / 2; }

DOVIT_HD int clamped(int value, int size) { return value < 0 ? 0 : value < size ? value : size - 1; }

struct LabelShared {
  short corners[2][kMaxCells + 1];
  short same[kMaxCells];   // the class of a cell that has one
  short mixed[kMaxCells];  // the cells that have several
  int mixed_count;
};

// One image: logits [classes, height, width] → labels [height·scale, width·scale].
template <class T, class Label>
struct Labels {
  int classes, height, width, scale;
  const T* logits;
  Label* labels;
  float ratio = 1.0f / static_cast<float>(scale);  // here, and not in a kernel, which has no registers left for it
};

// The labels of one row of cells in one tile of columns. kWide labels are written at a time; it divides a row's.
template <int kWide, class Team, class T, class Label>
DOVIT_HD void label_tile(Team& team, LabelShared& shared, const Labels<T, Label>& g, int cell_row, int tile) {
  const int scale = g.scale, columns = g.width * scale, rows = g.height * scale;
  const int left = tile * kTileColumns, right = left + kTileColumns < columns ? left + kTileColumns : columns;
  const int from = first_pixel(cell_row, scale), top = from < 0 ? 0 : from;
  const int bottom = from + scale < rows ? from + scale : rows;
  const int first_cell = cell_of(left, scale), cells = cell_of(right - 1, scale) - first_cell + 1;

  team.each([&](int thread) {
    if (thread == 0) shared.mixed_count = 0;
    for (int k = thread; k < 2 * (cells + 1); k += team.threads) {
      const int below = k > cells, corner = below ? k - cells - 1 : k;
      const int y = clamped(cell_row - 1 + below, g.height), x = clamped(first_cell - 1 + corner, g.width);
      const T* logits = g.logits + size_t(y) * g.width + x;
      shared.corners[below][corner] = static_cast<short>(largest_class(logits, g.classes, size_t(g.height) * g.width));
    }
  });
  team.each([&](int thread) {
    for (int cell = thread; cell < cells; cell += team.threads) {
      const short *above = shared.corners[0] + cell, *below = shared.corners[1] + cell;
      const short label = shared.same[cell] = above[0];
      if (above[1] != label || below[0] != label || below[1] != label)
        shared.mixed[team.count(&shared.mixed_count)] = static_cast<short>(cell);
    }
  });
  team.each([&](int thread) {  // all cells as if they were of one class; the next phase has the others
    const int packs = (right - left) / kWide;
    for (int k = thread; k < (bottom - top) * packs; k += team.threads) {
      const int y = top + k / packs, x = left + k % packs * kWide;
      int cell = cell_of(x, scale), next = first_pixel(cell + 1, scale);
      Pack<Label, kWide> pack;
      DOVIT_UNROLL
      for (int e = 0; e < kWide; ++e) {
        if (x + e == next) {
          ++cell;
          next += scale;
        }
        pack.values[e] = static_cast<Label>(shared.same[cell - first_cell]);
      }
      *reinterpret_cast<Pack<Label, kWide>*>(g.labels + size_t(y) * columns + x) = pack;
    }
  });
  team.each([&](int thread) {
    const int pixels = scale * scale;
    for (int k = thread; k < shared.mixed_count * pixels; k += team.threads) {
      const int y = from + k % pixels / scale;
      const int x = first_pixel(first_cell + shared.mixed[k / pixels], scale) + k % scale;
      if (y < top || y >= bottom || x < left || x >= right) continue;
      g.labels[size_t(y) * columns + x] = static_cast<Label>(label_of(
          g.logits, g.classes, g.height, g.width, neighbours(y, g.height, g.ratio), neighbours(x, g.width, g.ratio)));
    }
  });
}

// One image: logits [classes, height, width] → labels [out_height, out_width] of any size, smaller ones too.
template <class T, class Label>
struct ResizedLabels {
  int classes, height, width, out_height, out_width;
  const T* logits;
  Label* labels;
  float down = static_cast<float>(height) / static_cast<float>(out_height);
  float across = static_cast<float>(width) / static_cast<float>(out_width);
};

template <class T, class Label>
DOVIT_HD void label_pixel(const ResizedLabels<T, Label>& g, int y, int x) {
  g.labels[size_t(y) * g.out_width + x] = static_cast<Label>(label_of(
      g.logits, g.classes, g.height, g.width, neighbours(y, g.height, g.down), neighbours(x, g.width, g.across)));
}

}  // namespace dovit
