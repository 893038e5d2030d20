// The kernel that decides, with and without setting a SWITCH node.
//
// cudaGraphSetConditional is a function of the driver, which drivers older than CUDA 12.4 do not have: they load no
// code that names it. So the kernel that calls it is compiled by itself, in decide_switch.cu, and everything else runs
// with those drivers too.
#pragma once

#include "decide.h"
#include "launch.h"

namespace dovit {
namespace {

// Makes a SWITCH node of the captured graph run the body with this number.
__device__ inline void set_switch(unsigned long long handle, int choice) {
#if CUDART_VERSION >= 12040
  cudaGraphSetConditional(handle, static_cast<unsigned>(choice));
#endif
}

// One block an image. The capacity is the batch's, so with several images a first kernel counts for all (`staying`);
// one image is counted on the way.
template <bool kSetsSwitch>
__global__ void __launch_bounds__(kDecideThreads) decide_kernel(const dovit_decide_args a) {
  __shared__ DecideShared shared;
  BlockTeam team{kDecideThreads};
  const int image = blockIdx.x, images = gridDim.x, count = a.count;
  const size_t row = size_t(image) * count;
  uint32_t* keys = keys_of(shared, count, a.slots + row);
  const int own = make_keys(team, shared, a.confidence + row, count, *a.threshold, keys);
  int largest = own;
  if (images > 1)
    for (int k = 0; k < images; ++k) largest = max(largest, a.staying[k]);
  const int chosen = choose_capacity(team, shared, largest, a.capacities, a.capacity_count);
  if (image == 0 && threadIdx.x == 0) {
    *a.capacity = chosen;
    if constexpr (kSetsSwitch) set_switch(a.switch_handle, shared.choice);
  }
  decide_image(team, shared, keys, count, own, chosen, a.keep + size_t(image) * chosen, a.slots + row);
}

}  // namespace

// decide_kernel<true>, in decide_switch.cu.
void launch_decide_and_switch(dovit_decide_args a, cudaStream_t stream);

}  // namespace dovit
