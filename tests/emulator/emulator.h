// CUDA on the host, so that the kernels and their launchers run as they are, but for the launch syntax, which
// emulate.py rewrites: a block's threads are real threads, __syncthreads is a barrier of theirs, a warp's shuffles are
// barriers of
// 32. So a missing barrier is a data race, which ThreadSanitizer finds, and a wrong grid leaves its marks. Blocks run
// one after the other, in an order of chance.
#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
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

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

using std::max;
using std::min;

namespace emulator {

constexpr int kWarp = 32;

struct Warp {
  std::barrier<> barrier{kWarp};
  uint64_t values[kWarp];
};

struct Block {
  explicit Block(int threads) : barrier(threads), warps(threads / kWarp), barriers_met(threads) {
    for (auto& warp : warps) warp = std::make_unique<Warp>();
  }
  std::barrier<> barrier;
  std::vector<std::unique_ptr<Warp>> warps;
  std::vector<int> barriers_met;  // by each thread, in the block that runs
};

inline thread_local Block* block = nullptr;
inline thread_local int thread = 0;  // in its block, all dimensions as one

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulated kernel: %s\n", what);
  std::abort();
}

// One value from each lane of the warp, by a lane's number.
template <class T>
T exchange(T value, int from) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  Warp& warp = *block->warps[thread / kWarp];
  std::memcpy(&warp.values[thread % kWarp], &value, sizeof value);
  warp.barrier.arrive_and_wait();
  T result;
  std::memcpy(&result, &warp.values[from], sizeof result);
  warp.barrier.arrive_and_wait();
  return result;
}

template <class Kernel>
void launch(dim3 grid, dim3 shape, Kernel kernel) {
  const int threads = static_cast<int>(shape.x * shape.y * shape.z);
  if (threads % kWarp || threads > 1024) fail("a block must be of whole warps, 1024 threads at most");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) fail("no such grid");
  Block running(threads);
  std::vector<unsigned> order(size_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(static_cast<unsigned>(order.size())));
  std::vector<std::thread> team;
  for (int number = 0; number < threads; ++number)
    team.emplace_back([&, number] {
      block = &running;
      thread = number;
      threadIdx = dim3(number % shape.x, number / shape.x % shape.y, number / shape.x / shape.y);
      blockDim = shape;
      gridDim = grid;
      for (const unsigned at : order) {
        blockIdx = dim3(at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y);
        running.barriers_met[thread] = 0;
        kernel();
        running.barrier.arrive_and_wait();
        if (running.barriers_met[thread] != running.barriers_met[0]) fail("threads of a block met other barriers");
        running.barrier.arrive_and_wait();
      }
    });
  for (auto& member : team) member.join();
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
#ifndef EMULATOR_WITHOUT_BARRIERS  // which shows that they are missed
  ++emulator::block->barriers_met[emulator::thread];
  emulator::block->barrier.arrive_and_wait();
#endif
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulator::exchange(value, (emulator::thread % emulator::kWarp) ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int step) {
  const int lane = emulator::thread % emulator::kWarp;
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
