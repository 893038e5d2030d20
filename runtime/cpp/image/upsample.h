// Bilinear resizing of logits as torch does it with align_corners=False, with the roundings of runtime/resize.py: first
// along rows, then along columns, each value as the rounded sum of two rounded products.
#pragma once

#include <functional>
#include <vector>

#include "image/pixels.h"
#include "non_copyable.h"

namespace dovit::runtime {

// Value k of the result: low[k] · x[from[k]] + high[k] · x[from[k] + 1], or the first product alone where high[k] is 0.
struct Interpolation {
  std::vector<int> from;
  std::vector<float> low, high;
};

Interpolation interpolation(int source, int target);

// float32 [C, h, w] → its values at another size, row by row.
class Upsampler {
 public:
  // Where row `y` of class `c` lies, w values.
  using Rows = std::function<const float*(int c, int y)>;

  Upsampler(Rows source, int classes, Size from, Size to);
  Upsampler(const float* logits, int classes, Size from, Size to);

  // Row `y` of every class: [C, W]. Valid until the next call.
  const float* row(int y);

  // The last source row that row `y` needs.
  int needs(int y) const;

 private:
  const float* across(int source_row);

  const Rows source_;
  const int classes_;
  const Size from_, to_;
  const Interpolation down_, across_;
  std::vector<float> made_, cache_[2];
  int cached_[2] = {-1, -1};
};

// Logits of one row → labels: the lowest class on a tie.
class RowLabels {
 public:
  RowLabels(int classes, int width, int label_bytes) : classes_(classes), label_bytes_(label_bytes), best_(width) {
    winner_.resize(best_.size());
  }

  // `row`: [C, W]; `labels`: [W], uint8 or int16.
  void write(const float* row, void* labels);

 private:
  const int classes_, label_bytes_;
  std::vector<float> best_;
  std::vector<int> winner_;
};

// Logits that come row by row from the top → labels of another size, or of the same, with memory for two rows of
// logits.
class LabelWriter : NonCopyable {
 public:
  // `from`: the size of the logits; `to`: that of the labels, written as uint8 or int16 into rows `stride` bytes apart.
  LabelWriter(int classes, Size from, Size to, void* labels, size_t stride, int label_bytes);

  // Where row `y` of the logits is to be written, [C, w]; rows come one after the other.
  float* place(int y) { return rows_[y & 1].data(); }

  // Row `y` is written: makes the labels that need no row below it.
  void done(int y);

 private:
  const int height_;
  void* const labels_;
  const size_t stride_;
  std::vector<float> rows_[2];  // a row of labels interpolates between two neighbours
  Upsampler upsampler_;
  RowLabels row_labels_;
  int next_ = 0;
};

// float32 [C, h, w] → classes [H, W], written as uint8 or int16 into rows `stride` bytes apart.
void labels_from_logits(const float* logits, int classes, Size from, Size to, void* labels, size_t stride,
                        int label_bytes);

}  // namespace dovit::runtime
