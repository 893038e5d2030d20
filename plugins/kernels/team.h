// The threads of a block that work together on one image.
//
// The work is written as phases: team.each(f) calls f(thread) for every thread of the block and ends with a barrier.
// Within a phase no thread may read what another one writes, except through the team's functions. The tests run the
// threads of a block in random order, and under ThreadSanitizer, so that a phase that breaks this rule is noticed.
#pragma once

#define DOVIT_HD __host__ __device__ __forceinline__

#ifdef __CUDA_ARCH__
#define DOVIT_UNROLL _Pragma("unroll")
#else
#define DOVIT_UNROLL
#endif

namespace dovit {

// The threads of a block; blockDim.x is a multiple of the warp's 32.
struct BlockTeam {
  int threads;

  template <class F>
  __device__ __forceinline__ void each(F&& f) {
    f(static_cast<int>(threadIdx.x));
    __syncthreads();
  }

  // The constant matters: where the compiler sees that one is added, it emits ATOMS.POPC.INC, by which the lanes of a
  // warp that meet in one place go together instead of one after the other.
  __device__ __forceinline__ int count(int* place) { return atomicAdd(place, 1); }

  // Within a warp by shuffles, so that a place in shared memory sees one change a warp.
  template <class V, class Join>
  __device__ __forceinline__ V over_warp(V value, Join join) {
    for (int step = 16; step > 0; step >>= 1) value = join(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
  }
  __device__ __forceinline__ void sum(int* place, int value) {
    value = over_warp(value, [](int a, int b) { return a + b; });
    if ((threadIdx.x & 31) == 0) atomicAdd(place, value);
  }
  __device__ __forceinline__ void least(unsigned* place, unsigned value) {
    value = over_warp(value, [](unsigned a, unsigned b) { return min(a, b); });
    if ((threadIdx.x & 31) == 0) atomicMin(place, value);
  }
  __device__ __forceinline__ void greatest(unsigned* place, unsigned value) {
    value = over_warp(value, [](unsigned a, unsigned b) { return max(a, b); });
    if ((threadIdx.x & 31) == 0) atomicMax(place, value);
  }

  // Sums within each warp by shuffles, then over the warps. `scratch` has room for 33 numbers.
  __device__ __forceinline__ int exclusive_sums(int* counts, int* scratch) {
    const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, warps = threads >> 5;
    const int count = counts[thread];
    int sum = count;
    for (int step = 1; step < 32; step <<= 1) {
      const int other = __shfl_up_sync(0xffffffffu, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) scratch[warp] = sum;
    __syncthreads();
    if (warp == 0) {
      int total = lane < warps ? scratch[lane] : 0;
      const int own = total;
      for (int step = 1; step < 32; step <<= 1) {
        const int other = __shfl_up_sync(0xffffffffu, total, step);
        if (lane >= step) total += other;
      }
      scratch[lane] = total - own;
      if (lane == 31) scratch[32] = total;
    }
    __syncthreads();
    counts[thread] = scratch[warp] + sum - count;
    const int all = scratch[32];
    __syncthreads();
    return all;
  }
};

}  // namespace dovit
