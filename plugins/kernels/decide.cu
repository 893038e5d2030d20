#include "decide.h"
#include "launch.h"

namespace dovit {
namespace {

// Makes a SWITCH node of the captured graph run the body with this number.
__device__ void set_switch(unsigned long long handle, int choice) {
#if CUDART_VERSION >= 12040
  cudaGraphSetConditional(handle, static_cast<unsigned>(choice));
#endif
}

// One block an image. The capacity is the batch's, so with several images a first kernel counts for all; one image is
// counted on the way.
__global__ void __launch_bounds__(kDecideThreads)
    count_kernel(const float* confidence, const float* threshold, int count, int* staying) {
  __shared__ int shared;
  BlockTeam team{kDecideThreads};
  const int image = blockIdx.x;
  const int found = count_staying(team, shared, confidence + size_t(image) * count, count, *threshold);
  if (threadIdx.x == 0) staying[image] = found;
}

__global__ void __launch_bounds__(kDecideThreads)
    decide_kernel(const float* confidence, const float* threshold, const int64_t* capacities, int capacity_count,
                  int count, const int* staying, int* keep, int* slots, int* capacity,
                  unsigned long long switch_handle) {
  __shared__ DecideShared shared;
  BlockTeam team{kDecideThreads};
  const int image = blockIdx.x, images = gridDim.x;
  const size_t row = size_t(image) * count;
  uint32_t* keys = keys_of(shared, count, slots + row);
  const int own = make_keys(team, shared, confidence + row, count, *threshold, keys);
  int largest = own;
  if (images > 1)
    for (int k = 0; k < images; ++k) largest = max(largest, staying[k]);
  const int chosen = choose_capacity(team, shared, largest, capacities, capacity_count);
  if (image == 0 && threadIdx.x == 0) {
    *capacity = chosen;
    if (switch_handle) set_switch(switch_handle, shared.choice);
  }
  decide_image(team, shared, keys, count, own, chosen, keep + size_t(image) * chosen, slots + row);
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
  decide_kernel<<<batch, kDecideThreads, 0, stream>>>(confidence, threshold, capacities, capacity_count, count, staying,
                                                      keep, slots, capacity, switch_handle);
  return cudaGetLastError();
}

cudaError_t launch_slots(const int* keep, int batch, int count, int capacity, int* slots, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const dim3 grid((count + kSlotThreads - 1) / kSlotThreads, batch);
  slots_kernel<<<grid, kSlotThreads, 0, stream>>>(keep, count, capacity, slots);
  return cudaGetLastError();
}

}  // namespace dovit
