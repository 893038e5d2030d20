#include "decide.cuh"

namespace dovit {

void launch_decide_and_switch(const float* confidence, const float* threshold, const int64_t* capacities,
                              int capacity_count, int batch, int count, const int* staying, int* keep, int* slots,
                              int* capacity, unsigned long long switch_handle, cudaStream_t stream) {
  decide_kernel<true><<<batch, kDecideThreads, 0, stream>>>(confidence, threshold, capacities, capacity_count, count,
                                                            staying, keep, slots, capacity, switch_handle);
}

}  // namespace dovit
