#include <cstdint>

#include "element.cuh"
#include "labels.h"

namespace dovit {
namespace {

constexpr int kThreads = 128;
constexpr int kResident = 8;  // blocks of a multiprocessor: enough, and they leave 64 registers a thread

// Blocks: tiles of columns, rows of cells, images.
template <int kWide, class T, class Label>
__global__ void __launch_bounds__(kThreads, kResident) labels_kernel(Labels<T, Label> g) {
  __shared__ LabelShared shared;
  BlockTeam team{kThreads};
  const size_t map = size_t(g.height) * g.width;
  g.logits += blockIdx.z * map * g.classes;
  g.labels += blockIdx.z * map * g.scale * g.scale;
  label_tile<kWide>(team, shared, g, blockIdx.y, blockIdx.x);
}

template <class T, class Label>
cudaError_t launch(const Labels<T, Label>& g, int batch, cudaStream_t stream) {
  constexpr int kWide = 4;
  const int columns = g.width * g.scale;
  const dim3 grid((columns + kTileColumns - 1) / kTileColumns, g.height + 1, batch);
  if (columns % kWide == 0 && reinterpret_cast<uintptr_t>(g.labels) % (kWide * sizeof(Label)) == 0) {
    labels_kernel<kWide><<<grid, kThreads, 0, stream>>>(g);
  } else {
    labels_kernel<1><<<grid, kThreads, 0, stream>>>(g);
  }
  return cudaGetLastError();
}

// Blocks: tiles of columns, rows, images.
template <class T, class Label>
__global__ void __launch_bounds__(kThreads) resized_labels_kernel(ResizedLabels<T, Label> g) {
  const int x = blockIdx.x * kThreads + threadIdx.x;
  if (x >= g.out_width) return;
  g.logits += blockIdx.z * (size_t(g.height) * g.width * g.classes);
  g.labels += blockIdx.z * (size_t(g.out_height) * g.out_width);
  label_pixel(g, blockIdx.y, x);
}

template <class T, class Label>
cudaError_t launch(const ResizedLabels<T, Label>& g, int batch, cudaStream_t stream) {
  const dim3 grid((g.out_width + kThreads - 1) / kThreads, g.out_height, batch);
  resized_labels_kernel<<<grid, kThreads, 0, stream>>>(g);
  return cudaGetLastError();
}

cudaError_t launch_labels(dovit_labels_args a, cudaStream_t stream) {
  return with_element(a.type, [&](auto element) {
    using T = decltype(element);
    const T* from = static_cast<const T*>(a.logits);
    const Labels<T, uint8_t> few{a.classes, a.height, a.width, a.scale, from, static_cast<uint8_t*>(a.labels)};
    const Labels<T, int16_t> many{a.classes, a.height, a.width, a.scale, from, static_cast<int16_t*>(a.labels)};
    return a.classes <= 256 ? launch(few, a.batch, stream) : launch(many, a.batch, stream);
  });
}

cudaError_t launch_resized_labels(dovit_resized_labels_args a, cudaStream_t stream) {
  const int scale = a.out_height / a.height;
  if (scale > 0 && a.out_height == a.height * scale && a.out_width == a.width * scale)
    return launch_labels(
        {sizeof(dovit_labels_args), a.type, a.logits, a.labels, a.batch, a.classes, a.height, a.width, scale}, stream);
  return with_element(a.type, [&](auto element) {
    using T = decltype(element);
    const T* from = static_cast<const T*>(a.logits);
    const ResizedLabels<T, uint8_t> few{
        a.classes, a.height, a.width, a.out_height, a.out_width, from, static_cast<uint8_t*>(a.labels)};
    const ResizedLabels<T, int16_t> many{
        a.classes, a.height, a.width, a.out_height, a.out_width, from, static_cast<int16_t*>(a.labels)};
    return a.classes <= 256 ? launch(few, a.batch, stream) : launch(many, a.batch, stream);
  });
}

}  // namespace
}  // namespace dovit

DOVIT_KERNEL(labels)
DOVIT_KERNEL(resized_labels)
