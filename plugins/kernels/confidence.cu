#include "confidence.h"
#include "element.cuh"

namespace dovit {
namespace {

constexpr int kThreads = 128;

template <class T>
__global__ void __launch_bounds__(kThreads)
    confidence_kernel(const T* logits, int classes, int count, float* confidence) {
  const int token = blockIdx.x * kThreads + threadIdx.x;
  if (token >= count) return;
  const T* column = logits + size_t(blockIdx.y) * classes * count + token;
  confidence[size_t(blockIdx.y) * count + token] = confidence_of(column, classes, count);
}

}  // namespace

cudaError_t launch_confidence(Type type, const void* logits, float* confidence, int batch, int classes, int count,
                              cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const dim3 grid((count + kThreads - 1) / kThreads, batch);
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    confidence_kernel<<<grid, kThreads, 0, stream>>>(static_cast<const T*>(logits), classes, count, confidence);
    return cudaGetLastError();
  });
}

}  // namespace dovit
