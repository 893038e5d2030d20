// The confidence and label kernels' logic for the host.
#include <algorithm>
#include <cstdint>

#include "confidence.h"
#include "labels.h"

namespace {

template <class T>
void confidence(const T* logits, float* out, int batch, int classes, int count, int size) {
  for (int image = 0; image < batch; ++image)
    for (int token = 0; token < count; ++token) {
      const T* column = logits + size_t(image) * classes * count + token;
      dovit::Exponentials all = dovit::exponentials_of(column, 0, std::min(size, classes), count);
      for (int first = size; first < classes; first += size)
        all = joined(all, dovit::exponentials_of(column, first, std::min(first + size, classes), count));
      out[size_t(image) * count + token] = dovit::confidence_of(all);
    }
}

template <int kWide, class T>
void labels(const T* logits, short* out, int batch, int classes, int height, int width, int scale, int threads,
            int backwards) {
  static dovit::LabelShared shared;
  dovit::HostTeam team{threads, backwards != 0};
  const int tiles = (width * scale + dovit::kTileColumns - 1) / dovit::kTileColumns;
  for (int image = 0; image < batch; ++image) {
    const size_t map = size_t(image) * height * width;
    const dovit::Labels<T, short> g{classes, height, width, scale, logits + map * classes, out + map * scale * scale};
    for (int row = 0; row <= height; ++row)
      for (int tile = 0; tile < tiles; ++tile) dovit::label_tile<kWide>(team, shared, g, row, tile);
  }
}

template <class T>
void resized_labels(const T* logits, short* out, int batch, int classes, int height, int width, int rows, int columns) {
  for (int image = 0; image < batch; ++image) {
    const dovit::ResizedLabels<T, short> g{classes,
                                           height,
                                           width,
                                           rows,
                                           columns,
                                           logits + size_t(image) * classes * height * width,
                                           out + size_t(image) * rows * columns};
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x) dovit::label_pixel(g, y, x);
  }
}

}  // namespace

extern "C" int host_slice_size(int classes) { return dovit::slice_size(classes); }

extern "C" void host_confidence(int half, const void* logits, float* out, int batch, int classes, int count, int size) {
  if (half) {
    confidence(static_cast<const _Float16*>(logits), out, batch, classes, count, size);
  } else {
    confidence(static_cast<const float*>(logits), out, batch, classes, count, size);
  }
}

extern "C" void host_labels(int half, const void* logits, short* out, int batch, int classes, int height, int width,
                            int scale, int threads, int backwards) {
  const bool wide = width * scale % 4 == 0;
  if (half) {
    (wide ? labels<4, _Float16> : labels<1, _Float16>)(static_cast<const _Float16*>(logits), out, batch, classes,
                                                       height, width, scale, threads, backwards);
  } else {
    (wide ? labels<4, float> : labels<1, float>)(static_cast<const float*>(logits), out, batch, classes, height, width,
                                                 scale, threads, backwards);
  }
}

extern "C" void host_resized_labels(const float* logits, short* out, int batch, int classes, int height, int width,
                                    int rows, int columns) {
  resized_labels(logits, out, batch, classes, height, width, rows, columns);
}
