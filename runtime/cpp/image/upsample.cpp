#include "image/upsample.h"

#include <algorithm>
#include <cmath>

namespace dovit::runtime {

namespace {

// Each loop is compiled twice, for any processor and for AVX2. The results are the same: nothing is contracted to fused
// multiply-adds (-ffp-contract=off).
#if defined(__x86_64__)
#define DOVIT_AVX2 __attribute__((target("avx2")))
bool has_avx2() { return __builtin_cpu_supports("avx2"); }
#else
#define DOVIT_AVX2
bool has_avx2() { return false; }
#endif
#define DOVIT_INLINE inline __attribute__((always_inline))

DOVIT_INLINE void mix_rows(const float* first, const float* second, float low, float high, float* out, size_t count) {
  for (size_t k = 0; k < count; ++k) out[k] = low * first[k] + high * second[k];
}
DOVIT_AVX2 void mix_rows_avx2(const float* a, const float* b, float low, float high, float* out, size_t count) {
  mix_rows(a, b, low, high, out, count);
}

DOVIT_INLINE void mix_columns(const float* row, const Interpolation& at, float* out) {
  for (size_t x = 0; x < at.from.size(); ++x) {
    const float* pair = row + at.from[x];
    out[x] = at.low[x] * pair[0] + at.high[x] * pair[at.high[x] != 0.0f];
  }
}
DOVIT_AVX2 void mix_columns_avx2(const float* row, const Interpolation& at, float* out) { mix_columns(row, at, out); }

DOVIT_INLINE void take_larger(const float* values, int label, float* best, int* labels, size_t count) {
  for (size_t x = 0; x < count; ++x) {
    const bool larger = values[x] > best[x];
    best[x] = larger ? values[x] : best[x];
    labels[x] = larger ? label : labels[x];
  }
}
DOVIT_AVX2 void take_larger_avx2(const float* values, int label, float* best, int* labels, size_t count) {
  take_larger(values, label, best, labels, count);
}

}  // namespace

Interpolation interpolation(int source, int target) {
  Interpolation made;
  // in float32 as torch, whose rounding of the positions shows in the weights of large images
  const float scale = static_cast<float>(source) / static_cast<float>(target);
  for (int k = 0; k < target; ++k) {
    const float middle = scale * (static_cast<float>(k) + 0.5f);
    const float at = std::max(middle - 0.5f, 0.0f);
    const int low = std::min(static_cast<int>(at), source - 1);
    const float part = std::clamp(at - static_cast<float>(low), 0.0f, 1.0f);
    const bool border = low + 1 >= source;  // both weights fall on the last value
    made.from.push_back(low);
    made.low.push_back(border ? (1.0f - part) + part : 1.0f - part);
    made.high.push_back(border ? 0.0f : part);
  }
  return made;
}

Upsampler::Upsampler(Rows source, int classes, Size from, Size to)
    : source_(std::move(source)),
      classes_(classes),
      from_(from),
      to_(to),
      down_(interpolation(from.height, to.height)),
      across_(interpolation(from.width, to.width)) {
  made_.resize(static_cast<size_t>(classes) * to.width);
}

Upsampler::Upsampler(const float* logits, int classes, Size from, Size to)
    : Upsampler([=](int c, int y) { return logits + (static_cast<size_t>(c) * from.height + y) * from.width; }, classes,
                from, to) {}

// Row `source_row` of every class, stretched: [C, W]. The two that a row lies between are kept for the next.
const float* Upsampler::across(int source_row) {
  const int place = source_row & 1;
  if (cached_[place] == source_row) return cache_[place].data();
  cache_[place].resize(made_.size());
  for (int c = 0; c < classes_; ++c) {
    const float* row = source_(c, source_row);
    float* out = cache_[place].data() + static_cast<size_t>(c) * to_.width;
    if (from_.width == to_.width)
      std::copy(row, row + to_.width, out);
    else
      (has_avx2() ? mix_columns_avx2 : mix_columns)(row, across_, out);
  }
  cached_[place] = source_row;
  return cache_[place].data();
}

int Upsampler::needs(int y) const {
  if (from_.height == to_.height) return y;
  return down_.from[y] + (down_.high[y] != 0.0f);
}

const float* Upsampler::row(int y) {
  if (from_.height == to_.height) return across(y);
  const float high = down_.high[y];
  const float* first = across(down_.from[y]);
  const float* second = high != 0.0f ? across(down_.from[y] + 1) : first;
  (has_avx2() ? mix_rows_avx2 : mix_rows)(first, second, down_.low[y], high, made_.data(), made_.size());
  return made_.data();
}

void RowLabels::write(const float* row, void* labels) {
  const size_t width = best_.size();
  std::copy(row, row + width, best_.begin());
  std::fill(winner_.begin(), winner_.end(), 0);
  for (int c = 1; c < classes_; ++c)
    (has_avx2() ? take_larger_avx2 : take_larger)(row + static_cast<size_t>(c) * width, c, best_.data(), winner_.data(),
                                                  width);
  if (label_bytes_ == 1)
    std::transform(winner_.begin(), winner_.end(), static_cast<uint8_t*>(labels),
                   [](int label) { return static_cast<uint8_t>(label); });
  else
    std::transform(winner_.begin(), winner_.end(), static_cast<int16_t*>(labels),
                   [](int label) { return static_cast<int16_t>(label); });
}

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

void labels_from_logits(const float* logits, int classes, Size from, Size to, void* labels, size_t stride,
                        int label_bytes) {
  Upsampler upsampler(logits, classes, from, to);
  RowLabels rows(classes, to.width, label_bytes);
  for (int y = 0; y < to.height; ++y) rows.write(upsampler.row(y), static_cast<uint8_t*>(labels) + y * stride);
}

}  // namespace dovit::runtime
