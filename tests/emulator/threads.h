// A block's threads as real ones: __syncthreads is a barrier of theirs, a shuffle two barriers of 32.
#pragma once

#include <pthread.h>

#include <memory>
#include <thread>

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

// std::barrier spins before it sleeps: with hundreds of threads on a few cores that is most of the time.
class Barrier {
 public:
  explicit Barrier(unsigned threads) { pthread_barrier_init(&barrier_, nullptr, threads); }
  Barrier(const Barrier&) = delete;
  Barrier& operator=(const Barrier&) = delete;
  ~Barrier() { pthread_barrier_destroy(&barrier_); }
  void arrive_and_wait() { pthread_barrier_wait(&barrier_); }

 private:
  pthread_barrier_t barrier_;
};

struct Warp {
  Barrier barrier{kWarp};
  uint64_t values[kWarp];
};

struct Block {
  explicit Block(int threads) : barrier(threads), warps(threads / kWarp), barriers_met(threads) {
    for (auto& warp : warps) warp = std::make_unique<Warp>();
  }
  Barrier barrier;
  std::vector<std::unique_ptr<Warp>> warps;
  std::vector<int> barriers_met;  // by each thread, in the block that runs
};

inline thread_local Block* block = nullptr;
inline thread_local int thread = 0;  // in its block, all dimensions as one

inline int lane() { return thread % kWarp; }

template <class T>
T exchange(T value, int from) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  Warp& warp = *block->warps[thread / kWarp];
  std::memcpy(&warp.values[lane()], &value, sizeof value);
  warp.barrier.arrive_and_wait();
  T result;
  std::memcpy(&result, &warp.values[from], sizeof result);
  warp.barrier.arrive_and_wait();
  return result;
}

inline void wait_for_block() {
  ++block->barriers_met[thread];
  block->barrier.arrive_and_wait();
}

template <class Kernel>
void run(dim3 grid, dim3 shape, const std::vector<unsigned>& order, const Kernel& kernel, std::mt19937&) {
  const int threads = static_cast<int>(shape.x * shape.y * shape.z);
  Block running(threads);
  std::vector<std::thread> team;
  for (int number = 0; number < threads; ++number)
    team.emplace_back([&, number] {
      block = &running;
      thread = number;
      threadIdx = place_in(shape, number);
      blockDim = shape;
      gridDim = grid;
      for (const unsigned at : order) {
        blockIdx = place_in(grid, at);
        running.barriers_met[thread] = 0;
        kernel();
        running.barrier.arrive_and_wait();
        if (running.barriers_met[thread] != running.barriers_met[0]) fail("threads of a block met other barriers");
        running.barrier.arrive_and_wait();
      }
    });
  for (auto& member : team) member.join();
}

}  // namespace emulator
