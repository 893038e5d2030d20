// The confidence and label kernels' logic for the host.
#include "confidence.h"
#include "labels.h"

namespace {

template <class T>
void confidence(const T* logits, float* out, int batch, int classes, int count) {
  for (int image = 0; image < batch; ++image)
    for (int token = 0; token < count; ++token)
      out[size_t(image) * count + token] =
          dovit::confidence_of(logits + size_t(image) * classes * count + token, classes, count);
}

template <class T>
void labels(const T* logits, short* out, int batch, int classes, int height, int width, int scale) {
  for (int image = 0; image < batch; ++image)
    for (int y = 0; y < height * scale; ++y)
      for (int x = 0; x < width * scale; ++x)
        *out++ = static_cast<short>(dovit::label_of(logits + size_t(image) * classes * height * width, classes, height,
                                                    width, dovit::neighbours(y, height, scale),
                                                    dovit::neighbours(x, width, scale)));
}

}  // namespace

extern "C" void host_confidence(int half, const void* logits, float* out, int batch, int classes, int count) {
  if (half) {
    confidence(static_cast<const _Float16*>(logits), out, batch, classes, count);
  } else {
    confidence(static_cast<const float*>(logits), out, batch, classes, count);
  }
}

extern "C" void host_labels(int half, const void* logits, short* out, int batch, int classes, int height, int width,
                            int scale) {
  if (half) {
    labels(static_cast<const _Float16*>(logits), out, batch, classes, height, width, scale);
  } else {
    labels(static_cast<const float*>(logits), out, batch, classes, height, width, scale);
  }
}
