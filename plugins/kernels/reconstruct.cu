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
cudaError_t launch(dovit_reconstruct_args a, cudaStream_t stream) {
  const size_t packs = size_t(a.count) * (a.channels / kCount);
  constexpr int kPacks = kThreads * kPacksAhead;
  const dim3 grid(static_cast<unsigned>((packs + kPacks - 1) / kPacks), a.batch);
  reconstruct_kernel<T, kCount><<<grid, kThreads, 0, stream>>>(
      static_cast<const T*>(a.tokens), a.index, static_cast<T*>(a.full), a.count, a.prefix, a.positions, a.channels);
  return cudaGetLastError();
}

cudaError_t launch_reconstruct(dovit_reconstruct_args a, cudaStream_t stream) {
  if (a.count == 0) return cudaSuccess;
  return with_element(a.type, [&](auto element) {
    using T = decltype(element);
    return a.channels % kPackCount<T> == 0 ? launch<T, kPackCount<T>>(a, stream) : launch<T, 1>(a, stream);
  });
}

}  // namespace
}  // namespace dovit

DOVIT_KERNEL(reconstruct)
