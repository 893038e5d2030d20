#include "element.cuh"
#include "reconstruct.h"

namespace dovit {
namespace {

constexpr int kThreads = 128;

// Blocks: kPacksAhead packs a thread, neighbouring threads neighbouring packs; images.
template <class T, int kCount>
__global__ void __launch_bounds__(kThreads)
    reconstruct_kernel(const T* tokens, const int* index, T* full, int count, int prefix, int positions, int channels) {
  const int first = blockIdx.x * kThreads * kPacksAhead + threadIdx.x;
  if (first >= count * (channels / kCount)) return;
  reconstruct_packs<T, kCount>(tokens, index, full, blockIdx.y, first, kThreads, count, prefix, positions, channels);
}

template <class T, int kCount>
cudaError_t launch(const void* tokens, const int* index, void* full, int batch, int count, int prefix, int positions,
                   int channels, cudaStream_t stream) {
  const size_t packs = size_t(count) * (channels / kCount);
  constexpr int kPacks = kThreads * kPacksAhead;
  const dim3 grid(static_cast<unsigned>((packs + kPacks - 1) / kPacks), batch);
  reconstruct_kernel<T, kCount><<<grid, kThreads, 0, stream>>>(
      static_cast<const T*>(tokens), index, static_cast<T*>(full), count, prefix, positions, channels);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_reconstruct(Type type, const void* tokens, const int* index, void* full, int batch, int count,
                               int prefix, int positions, int channels, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    if (channels % kPackCount<T> == 0) {
      return launch<T, kPackCount<T>>(tokens, index, full, batch, count, prefix, positions, channels, stream);
    }
    return launch<T, 1>(tokens, index, full, batch, count, prefix, positions, channels, stream);
  });
}

}  // namespace dovit
