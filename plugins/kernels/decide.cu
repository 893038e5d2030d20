#include "decide.cuh"

namespace dovit {
namespace {

// One block an image.
__global__ void __launch_bounds__(kDecideThreads)
    count_kernel(const float* confidence, const float* threshold, int count, int* staying) {
  __shared__ int shared;
  BlockTeam team{kDecideThreads};
  const int image = blockIdx.x;
  const int found = count_staying(team, shared, confidence + size_t(image) * count, count, *threshold);
  if (threadIdx.x == 0) staying[image] = found;
}

constexpr int kSlotThreads = 256;

// Blocks: tokens, images. A token looks itself up in the ascending list, so no slot has to be cleared first.
__global__ void __launch_bounds__(kSlotThreads) slots_kernel(const int* keep, int count, int capacity, int* slots) {
  const int token = blockIdx.x * kSlotThreads + threadIdx.x;
  if (token < count) {
    slots[size_t(blockIdx.y) * count + token] = slot_in(keep + size_t(blockIdx.y) * capacity, capacity, token);
  }
}

cudaError_t launch_decide(dovit_decide_args a, cudaStream_t stream) {
#if CUDART_VERSION < 12040
  if (a.switch_handle) return cudaErrorNotSupported;
#endif
  if (a.batch > 1) count_kernel<<<a.batch, kDecideThreads, 0, stream>>>(a.confidence, a.threshold, a.count, a.staying);
  if (a.switch_handle)
    launch_decide_and_switch(a, stream);
  else
    decide_kernel<false><<<a.batch, kDecideThreads, 0, stream>>>(a);
  return cudaGetLastError();
}

cudaError_t launch_slots(dovit_slots_args a, cudaStream_t stream) {
  if (a.count == 0) return cudaSuccess;
  const dim3 grid((a.count + kSlotThreads - 1) / kSlotThreads, a.batch);
  slots_kernel<<<grid, kSlotThreads, 0, stream>>>(a.keep, a.count, a.capacity, a.slots);
  return cudaGetLastError();
}

}  // namespace
}  // namespace dovit

DOVIT_KERNEL(decide)
DOVIT_KERNEL(slots)
