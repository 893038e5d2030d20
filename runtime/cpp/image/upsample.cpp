#include "image/upsample.h"

#include <algorithm>
#include <cmath>

namespace dovit::runtime {

namespace {

// numpy's matrix products use fused multiply-adds where the processor has them. So do these: else a label could differ
// where two classes are equal to the last bit but one.
#if defined(__x86_64__)
#define DOVIT_FUSED __attribute__((target("avx2,fma")))
bool has_fused() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#else
#define DOVIT_FUSED
bool has_fused() { return true; }
#endif
#define DOVIT_INLINE inline __attribute__((always_inline))

template <bool kFused>
DOVIT_INLINE float multiply_add(float a, float b, float sum) {
  return kFused ? __builtin_fmaf(a, b, sum) : a * b + sum;
}

template <bool kFused>
DOVIT_INLINE void mix_rows(const float* first, const float* second, float low, float high, float* out, size_t count) {
  for (size_t k = 0; k < count; ++k) out[k] = multiply_add<kFused>(high, second[k], low * first[k]);
}
DOVIT_FUSED void mix_fused(const float* a, const float* b, float low, float high, float* out, size_t count) {
  mix_rows<true>(a, b, low, high, out, count);
}
void mix_plain(const float* a, const float* b, float low, float high, float* out, size_t count) {
  mix_rows<false>(a, b, low, high, out, count);
}

template <bool kFused>
DOVIT_INLINE void mix_columns(const float* row, const Interpolation& at, float* out) {
  for (size_t x = 0; x < at.from.size(); ++x) {
    const float* pair = row + at.from[x];
    out[x] = multiply_add<kFused>(at.high[x], pair[at.high[x] != 0.0f], at.low[x] * pair[0]);
  }
}
DOVIT_FUSED void columns_fused(const float* row, const Interpolation& at, float* out) {
  mix_columns<true>(row, at, out);
}
void columns_plain(const float* row, const Interpolation& at, float* out) { mix_columns<false>(row, at, out); }

DOVIT_INLINE void take_larger(const float* values, int label, float* best, int* labels, int count) {
  for (int x = 0; x < count; ++x) {
    const bool larger = values[x] > best[x];
    best[x] = larger ? values[x] : best[x];
    labels[x] = larger ? label : labels[x];
  }
}
DOVIT_FUSED void take_larger_fused(const float* values, int label, float* best, int* labels, int count) {
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

Upsampler::Upsampler(const float* logits, int classes, Size from, Size to)
    : logits_(logits),
      classes_(classes),
      from_(from),
      to_(to),
      down_(interpolation(from.height, to.height)),
      across_(interpolation(from.width, to.width)) {
  made_.resize(static_cast<size_t>(classes) * to.width);
}

// Row `source_row` of every class, stretched: [C, W]. The two that a row lies between are kept for the next.
const float* Upsampler::across(int source_row) {
  const int place = source_row & 1;
  if (cached_[place] == source_row) return cache_[place].data();
  cache_[place].resize(made_.size());
  for (int c = 0; c < classes_; ++c) {
    const float* row = logits_ + (static_cast<size_t>(c) * from_.height + source_row) * from_.width;
    float* out = cache_[place].data() + static_cast<size_t>(c) * to_.width;
    if (from_.width == to_.width)
      std::copy(row, row + to_.width, out);
    else
      (has_fused() ? columns_fused : columns_plain)(row, across_, out);
  }
  cached_[place] = source_row;
  return cache_[place].data();
}

const float* Upsampler::row(int y) {
  if (from_.height == to_.height) return across(y);
  const float high = down_.high[y];
  const float* first = across(down_.from[y]);
  const float* second = high != 0.0f ? across(down_.from[y] + 1) : first;
  (has_fused() ? mix_fused : mix_plain)(first, second, down_.low[y], high, made_.data(), made_.size());
  return made_.data();
}

void labels_from_logits(const float* logits, int classes, Size from, Size to, void* labels, size_t stride,
                        int label_bytes) {
  Upsampler upsampler(logits, classes, from, to);
  std::vector<float> best(to.width);
  std::vector<int> winner(to.width);
  for (int y = 0; y < to.height; ++y) {
    const float* row = upsampler.row(y);  // [C, W]
    std::copy(row, row + to.width, best.begin());
    std::fill(winner.begin(), winner.end(), 0);
    for (int c = 1; c < classes; ++c)
      (has_fused() ? take_larger_fused : take_larger)(row + static_cast<size_t>(c) * to.width, c, best.data(),
                                                      winner.data(), to.width);
    auto* out = static_cast<uint8_t*>(labels) + y * stride;
    if (label_bytes == 1)
      std::transform(winner.begin(), winner.end(), out, [](int label) { return static_cast<uint8_t>(label); });
    else
      std::transform(winner.begin(), winner.end(), reinterpret_cast<int16_t*>(out),
                     [](int label) { return static_cast<int16_t>(label); });
  }
}

}  // namespace dovit::runtime
