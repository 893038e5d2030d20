// CUDA on the host, so that the kernels and their launchers run as they are, but for the launch syntax, which
// emulate.py rewrites. A launch returns when it is done; blocks run one after the other, in an order of chance.
//
// A block's threads are fibres of the host thread that launches (fibres.h), which is fast, and real threads (threads.h)
// where a sanitizer watches: a missing barrier is then a data race, which ThreadSanitizer finds.
#pragma once

#if (defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)) && !defined(EMULATOR_THREADS)
#define EMULATOR_THREADS
#endif

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // of the block that runs

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using std::max;
using std::min;

namespace emulator {

constexpr int kWarp = 32;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulated kernel: %s\n", what);
  std::abort();
}

// Number `at` of a grid or block, as x, y and z.
inline dim3 place_in(dim3 shape, unsigned at) {
  return dim3(at % shape.x, at / shape.x % shape.y, at / shape.x / shape.y);
}

}  // namespace emulator

// Each of the two has threadIdx and its like, and in namespace emulator:
//   int lane();                               of the thread that runs, in its warp
//   T exchange(T value, int from);            one value from each lane of the warp, by a lane's number
//   void wait_for_block();
//   void run(grid, shape, order, kernel, chance);   all blocks of a launch, in that order
#ifdef EMULATOR_THREADS
#include "threads.h"
#else
#include "fibres.h"
#endif

namespace emulator {

// set by a test that wants the data races of kernels without barriers
inline const bool without_barriers = std::getenv("EMULATOR_WITHOUT_BARRIERS") != nullptr;

inline std::mutex one_launch;  // at a time, for __shared__ memory is static

template <class Kernel>
void launch(dim3 grid, dim3 shape, Kernel kernel) {
  const size_t threads = size_t(shape.x) * shape.y * shape.z;
  if (threads == 0 || threads % kWarp || threads > 1024) fail("a block must be of whole warps, 1024 threads at most");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) fail("no such grid");
  std::vector<unsigned> order(size_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  std::mt19937 chance(static_cast<unsigned>(order.size()));  // by the size, so that a test fails alone as with others
  std::shuffle(order.begin(), order.end(), chance);
  const std::lock_guard<std::mutex> turn(one_launch);
  run(grid, shape, order, kernel, chance);
}

template <class T, class Join>
T atomically(T* place, T value, Join join) {
  std::atomic_ref<T> shared(*place);
  T old = shared.load();
  while (!shared.compare_exchange_weak(old, join(old, value))) {
  }
  return old;
}

}  // namespace emulator

inline void __syncthreads() {
  if (!emulator::without_barriers) emulator::wait_for_block();
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulator::exchange(value, emulator::lane() ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int step) {
  const int lane = emulator::lane();
  return emulator::exchange(value, lane >= step ? lane - step : lane);
}

template <class T>
T atomicAdd(T* place, T value) {
  return std::atomic_ref<T>(*place).fetch_add(value);
}
template <class T>
T atomicMin(T* place, T value) {
  return emulator::atomically(place, value, [](T a, T b) { return std::min(a, b); });
}
template <class T>
T atomicMax(T* place, T value) {
  return emulator::atomically(place, value, [](T a, T b) { return std::max(a, b); });
}
