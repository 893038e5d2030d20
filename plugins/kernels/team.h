// One source for a kernel's logic and for its test on a machine without a GPU.
//
// A block's work is written as phases: team.each(f) calls f(thread) for every thread of the block and waits for all of
// them. On the device the threads run f side by side and meet at a barrier; on the host a loop runs them one after the
// other, which a phase must not notice: within one, no thread reads what another one writes, but for what goes through
// the team's functions. The tests run the loop in both directions, so that a phase which does notice gives two results.
#pragma once

#ifdef __CUDACC__
#define DOVIT_HD __host__ __device__ __forceinline__
#else
#define DOVIT_HD inline
#endif

#ifdef __CUDA_ARCH__
#define DOVIT_UNROLL _Pragma("unroll")
#else
#define DOVIT_UNROLL
#endif

namespace dovit {

// As many threads as `threads` says, in a loop.
struct HostTeam {
  int threads;
  bool backwards = false;

  template <class F>
  void each(F&& f) {
    for (int k = 0; k < threads; ++k) f(backwards ? threads - 1 - k : k);
  }
  // Inside a phase, by any thread: adds one to a shared place and returns what was there.
  int count(int* place) { return (*place)++; }
  // Inside a phase, by every thread, once and outside of branches: the sum, the least and the greatest of their values
  // into a shared place.
  void sum(int* place, int value) { *place += value; }
  void least(unsigned* place, unsigned value) { *place = value < *place ? value : *place; }
  void greatest(unsigned* place, unsigned value) { *place = value > *place ? value : *place; }
  // Between phases: counts[0…threads) → the sums of those before; returns the sum of all.
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
#endif

}  // namespace dovit
