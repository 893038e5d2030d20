// One source for a kernel's logic and for its test on a machine without a GPU.
//
// A block's work is written as phases: team.each(f) calls f(thread) for every thread of the block and waits for all of
// them. On the device the threads run f side by side and meet at a barrier; on the host a loop runs them one after the
// other, which a phase must not notice: within one, no thread reads what another one writes, but for what goes through
// add().
#pragma once

#ifdef __CUDACC__
#define DOVIT_HD __host__ __device__ __forceinline__
#else
#define DOVIT_HD inline
#endif

namespace dovit {

// As many threads as `threads` says, in a loop.
struct HostTeam {
  int threads;

  template <class F>
  void each(F&& f) {
    for (int thread = 0; thread < threads; ++thread) f(thread);
  }
  int add(int* place, int value) {
    const int old = *place;
    *place += value;
    return old;
  }
  // counts[0…threads) → the sums of those before; returns the sum of all.
  int exclusive_sums(int* counts, int* /*scratch*/) {
    int sum = 0;
    for (int thread = 0; thread < threads; ++thread) {
      const int count = counts[thread];
      counts[thread] = sum;
      sum += count;
    }
    return sum;
  }
};

#ifdef __CUDACC__
// The threads of a block; blockDim.x is a multiple of the warp's 32.
struct BlockTeam {
  int threads;

  template <class F>
  __device__ __forceinline__ void each(F&& f) {
    f(static_cast<int>(threadIdx.x));
    __syncthreads();
  }
  __device__ __forceinline__ int add(int* place, int value) { return atomicAdd(place, value); }
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
#endif

}  // namespace dovit
