#include "confidence.h"
#include "element.cuh"

namespace dovit {
namespace {

constexpr int kTokens = 32;  // of a block, side by side: small blocks, since there are only a few thousand tokens

// Blocks: tokens, images. Threads: tokens, slices of the classes.
template <class T>
__global__ void __launch_bounds__(kTokens* kMaxSlices)
    confidence_kernel(const T* logits, int classes, int count, float* confidence) {
  __shared__ Exponentials slices[kMaxSlices * kTokens];
  const int token = blockIdx.x * kTokens + threadIdx.x, size = slice_size(classes), first = threadIdx.y * size;
  const T* column = logits + size_t(blockIdx.y) * classes * count + token;
  const int end = token < count ? min(first + size, classes) : 0;
  Exponentials all = exponentials_of(column, first, end, count);
  slices[threadIdx.y * kTokens + threadIdx.x] = all;
  __syncthreads();
  if (threadIdx.y > 0 || token >= count) return;
  for (int k = 1; k < static_cast<int>(blockDim.y); ++k) all = joined(all, slices[k * kTokens + threadIdx.x]);
  confidence[size_t(blockIdx.y) * count + token] = confidence_of(all);
}

cudaError_t launch_confidence(dovit_confidence_args a, cudaStream_t stream) {
  if (a.count == 0) return cudaSuccess;
  const dim3 grid((a.count + kTokens - 1) / kTokens, a.batch);
  const dim3 block(kTokens, (a.classes + slice_size(a.classes) - 1) / slice_size(a.classes));
  return with_element(a.type, [&](auto element) {
    using T = decltype(element);
    confidence_kernel<<<grid, block, 0, stream>>>(static_cast<const T*>(a.logits), a.classes, a.count, a.confidence);
    return cudaGetLastError();
  });
}

}  // namespace
}  // namespace dovit

DOVIT_KERNEL(confidence)
