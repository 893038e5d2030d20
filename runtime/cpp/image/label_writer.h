// Rows of logits, as they come from the top → labels of another size, or of the same.
#pragma once

#include "image/upsample.h"
#include "not_copied.h"

namespace dovit::runtime {

class LabelWriter : NotCopied {
 public:
  // `from`: the size of the logits; `to`: that of the labels, written as uint8 or int16 into rows `stride` bytes apart.
  LabelWriter(int classes, Size from, Size to, void* labels, size_t stride, int label_bytes);

  // Where row `y` of the logits is to be written, [C, W]; rows come one after the other.
  float* place(int y) { return rows_[y & 1].data(); }

  // Row `y` is written: the labels are made that need no row below it.
  void done(int y);

 private:
  const int height_;
  void* const labels_;
  const size_t stride_;
  std::vector<float> rows_[2];  // two neighbours, which is what a row of labels needs
  Upsampler upsampler_;
  RowLabels row_labels_;
  int next_ = 0;
};

}  // namespace dovit::runtime
