#include <cstdint>

#include "element.cuh"
#include "labels.h"

namespace dovit {
namespace {

constexpr int kThreads = 128;

// Blocks: columns, rows, images. Neighbouring threads read the same few logits, which the first of them brings into the
// cache.
template <class T, class Label>
__global__ void __launch_bounds__(kThreads)
    labels_kernel(const T* logits, int classes, int height, int width, int scale, Label* labels) {
  const int column = blockIdx.x * kThreads + threadIdx.x, row = blockIdx.y;
  if (column >= width * scale) return;
  const T* image = logits + size_t(blockIdx.z) * classes * height * width;
  const int label =
      label_of(image, classes, height, width, neighbours(row, height, scale), neighbours(column, width, scale));
  labels[(size_t(blockIdx.z) * height * scale + row) * width * scale + column] = static_cast<Label>(label);
}

}  // namespace

cudaError_t launch_labels(Type type, const void* logits, void* labels, int batch, int classes, int height, int width,
                          int scale, cudaStream_t stream) {
  const dim3 grid((width * scale + kThreads - 1) / kThreads, height * scale, batch);
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    const T* from = static_cast<const T*>(logits);
    if (classes <= 256) {
      labels_kernel<<<grid, kThreads, 0, stream>>>(from, classes, height, width, scale, static_cast<uint8_t*>(labels));
    } else {
      labels_kernel<<<grid, kThreads, 0, stream>>>(from, classes, height, width, scale, static_cast<int16_t*>(labels));
    }
    return cudaGetLastError();
  });
}

}  // namespace dovit
