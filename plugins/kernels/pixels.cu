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

}  // namespace

cudaError_t launch_resize(const uint8_t* image, int height, int width, uint8_t* out, int out_height, int out_width,
                          const int* across, int across_width, const int* down, int down_width, uint8_t* scratch,
                          cudaStream_t stream) {
  const Taps x{across_width, across, across + out_width, across + 2 * out_width};
  const Taps y{down_width, down, down + out_height, down + 2 * out_height};
  const unsigned blocks = blocks_for(size_t(out_width) * 3);
  if (goes_down_first(height, width, out_height, out_width)) {
    const dim3 grid(blocks_for(size_t(width) * 3), out_height);
    resize_kernel<<<grid, kThreads, 0, stream>>>(image, scratch, y, width, width, true);
    resize_kernel<<<dim3(blocks, out_height), kThreads, 0, stream>>>(scratch, out, x, width, out_width, false);
  } else {
    resize_kernel<<<dim3(blocks, height), kThreads, 0, stream>>>(image, scratch, x, width, out_width, false);
    resize_kernel<<<dim3(blocks, out_height), kThreads, 0, stream>>>(scratch, out, y, out_width, out_width, true);
  }
  return cudaGetLastError();
}

cudaError_t launch_normalise(Type type, const uint8_t* images, void* out, int batch, int height, int width,
                             const float* mean, const float* deviation, cudaStream_t stream) {
  const size_t area = size_t(height) * width;
  const Normalisation n{{mean[0], mean[1], mean[2]}, {deviation[0], deviation[1], deviation[2]}};
  const dim3 grid(blocks_for(area), 3, batch);
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    normalise_kernel<<<grid, kThreads, 0, stream>>>(images, static_cast<T*>(out), area, n);
    return cudaGetLastError();
  });
}

}  // namespace dovit
