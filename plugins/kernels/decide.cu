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

}  // namespace

cudaError_t launch_decide(const float* confidence, const float* threshold, const int64_t* capacities,
                          int capacity_count, int batch, int count, int* staying, int* keep, int* slots, int* capacity,
                          unsigned long long switch_handle, cudaStream_t stream) {
#if CUDART_VERSION < 12040
  if (switch_handle) return cudaErrorNotSupported;
#endif
  if (batch > 1) count_kernel<<<batch, kDecideThreads, 0, stream>>>(confidence, threshold, count, staying);
  if (switch_handle)
    launch_decide_and_switch(confidence, threshold, capacities, capacity_count, batch, count, staying, keep, slots,
                             capacity, switch_handle, stream);
  else
    decide_kernel<false><<<batch, kDecideThreads, 0, stream>>>(confidence, threshold, capacities, capacity_count, count,
                                                               staying, keep, slots, capacity, 0);
  return cudaGetLastError();
}

cudaError_t launch_slots(const int* keep, int batch, int count, int capacity, int* slots, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const dim3 grid((count + kSlotThreads - 1) / kSlotThreads, batch);
  slots_kernel<<<grid, kSlotThreads, 0, stream>>>(keep, count, capacity, slots);
  return cudaGetLastError();
}

}  // namespace dovit
