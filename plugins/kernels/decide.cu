#include "decide.h"
#include "launch.h"

namespace dovit {
namespace {

// One block an image. Two kernels, since the capacity is the batch's: nothing else in between has to wait for all
// images.
__global__ void __launch_bounds__(kDecideThreads)
    count_kernel(const float* confidence, const float* threshold, int count, int* staying) {
  __shared__ DecideShared shared;
  BlockTeam team{static_cast<int>(blockDim.x)};
  const int image = blockIdx.x;
  const int found = count_staying(team, shared, confidence + size_t(image) * count, count, *threshold);
  if (threadIdx.x == 0) staying[image] = found;
}

__global__ void __launch_bounds__(kDecideThreads)
    decide_kernel(const float* confidence, const float* threshold, const int* capacities, int capacity_count, int count,
                  const int* staying, int* capacity, int* keep, int* slots) {
  __shared__ DecideShared shared;
  BlockTeam team{static_cast<int>(blockDim.x)};
  const int image = blockIdx.x;
  int largest = 0;
  for (int k = 0; k < static_cast<int>(gridDim.x); ++k) largest = max(largest, staying[k]);
  const int chosen = capacity_for(largest, capacities, capacity_count);
  if (image == 0 && threadIdx.x == 0) *capacity = chosen;
  const size_t row = size_t(image) * count;
  decide_image(team, shared, confidence + row, count, *threshold, staying[image], chosen, keep + row, slots + row);
}

}  // namespace

cudaError_t launch_decide(const float* confidence, const float* threshold, const int* capacities, int capacity_count,
                          int batch, int count, int* staying, int* capacity, int* keep, int* slots,
                          cudaStream_t stream) {
  count_kernel<<<batch, kDecideThreads, 0, stream>>>(confidence, threshold, count, staying);
  decide_kernel<<<batch, kDecideThreads, 0, stream>>>(confidence, threshold, capacities, capacity_count, count, staying,
                                                      capacity, keep, slots);
  return cudaGetLastError();
}

}  // namespace dovit
