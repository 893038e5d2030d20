#include "element.cuh"
#include "pixels.h"
#include "resize_taps.h"

namespace dovit {
namespace {

constexpr int kThreads = 128;

// Blocks: output bytes of a row, rows. `down` picks the direction: bytes a row apart, or a pixel apart.
__global__ void __launch_bounds__(kThreads)
    resize_kernel(const uint8_t* from, uint8_t* to, Taps taps, int from_width, int to_width, bool down) {
  const int at = blockIdx.x * kThreads + threadIdx.x, row = blockIdx.y;
  if (at >= to_width * 3) return;
  const int column = at / 3, channel = at % 3;
  const uint8_t* bytes = down ? from + at : from + size_t(row) * from_width * 3 + channel;
  const size_t stride = down ? size_t(from_width) * 3 : 3;
  to[size_t(row) * to_width * 3 + at] = resized_byte(bytes, stride, taps, down ? row : column, kWeightBits);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    normalise_kernel(const uint8_t* pixels, T* out, size_t area, Normalisation normalisation) {
  const size_t pixel = size_t(blockIdx.x) * kThreads + threadIdx.x;
  if (pixel >= area) return;
  const int channel = blockIdx.y;
  const size_t image = blockIdx.z;
  out[(image * 3 + channel) * area + pixel] = normalised<T>(pixels + image * area * 3, pixel, channel, normalisation);
}

unsigned blocks_for(size_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

cudaError_t launch_resize(dovit_resize_args a, cudaStream_t stream) {
  const Taps x{a.across_width, a.across, a.across + a.out_width, a.across + 2 * a.out_width};
  const Taps y{a.down_width, a.down, a.down + a.out_height, a.down + 2 * a.out_height};
  const int width = a.width, out_width = a.out_width;
  const unsigned blocks = blocks_for(size_t(out_width) * 3);
  if (goes_down_first(a.height, width, a.out_height, out_width)) {
    const dim3 grid(blocks_for(size_t(width) * 3), a.out_height);
    resize_kernel<<<grid, kThreads, 0, stream>>>(a.image, a.scratch, y, width, width, true);
    resize_kernel<<<dim3(blocks, a.out_height), kThreads, 0, stream>>>(a.scratch, a.out, x, width, out_width, false);
  } else {
    resize_kernel<<<dim3(blocks, a.height), kThreads, 0, stream>>>(a.image, a.scratch, x, width, out_width, false);
    resize_kernel<<<dim3(blocks, a.out_height), kThreads, 0, stream>>>(a.scratch, a.out, y, out_width, out_width, true);
  }
  return cudaGetLastError();
}

cudaError_t launch_normalise(dovit_normalise_args a, cudaStream_t stream) {
  const size_t area = size_t(a.height) * a.width;
  const Normalisation n{{a.mean[0], a.mean[1], a.mean[2]}, {a.deviation[0], a.deviation[1], a.deviation[2]}};
  const dim3 grid(blocks_for(area), 3, a.batch);
  return with_element(a.type, [&](auto element) {
    using T = decltype(element);
    normalise_kernel<<<grid, kThreads, 0, stream>>>(a.images, static_cast<T*>(a.out), area, n);
    return cudaGetLastError();
  });
}

}  // namespace
}  // namespace dovit

DOVIT_KERNEL(resize)
DOVIT_KERNEL(normalise)
