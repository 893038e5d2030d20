#include "image/label_writer.h"

namespace dovit::runtime {

LabelWriter::LabelWriter(int classes, Size from, Size to, void* labels, size_t stride, int label_bytes)
    : height_(to.height),
      labels_(labels),
      stride_(stride),
      upsampler_([this, width = static_cast<size_t>(from.width)](
                     int c, int y) { return rows_[y & 1].data() + static_cast<size_t>(c) * width; },
                 classes, from, to),
      row_labels_(classes, to.width, label_bytes) {
  for (std::vector<float>& row : rows_) row.resize(static_cast<size_t>(classes) * from.width);
}

void LabelWriter::done(int y) {
  for (; next_ < height_ && upsampler_.needs(next_) <= y; ++next_)
    row_labels_.write(upsampler_.row(next_), static_cast<char*>(labels_) + static_cast<size_t>(next_) * stride_);
}

}  // namespace dovit::runtime
