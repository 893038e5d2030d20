// A block's threads as fibres: each runs until it waits, and the next one is chosen at random. Most often a warp goes
// as far as it can before another does, since that is what shows a missing barrier, as a wrong result. Threads that
// wait for each other without end, or for one that has returned, are seen at once; one that spins is not.
#pragma once

#include <utility>

#include "stacks.h"

inline dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the thread that runs: launches come one at a time

namespace emulator {

enum class At { kNothing, kShuffle, kBarrier, kEnd };  // where a thread waits

struct Thread {
  dim3 index;
  Fibre* fibre;  // null before it starts and after it ends
  At at;
};

struct Warp {
  Thread lanes[kWarp];
  uint64_t values[2][kWarp];  // of the shuffle that comes, and of the one before, which are read meanwhile
  int coming;
};

// Fibres are kept for later launches and never freed.
struct Machine {
  Fibre host;
  std::vector<Fibre*> idle;
  std::vector<Warp> warps;
  Warp* warp;
  int lane;
  void (*call)(const void* kernel);
  const void* kernel;
};
inline Machine machine;

inline int lane() { return machine.lane; }

inline void wait(At at) {
  Thread& thread = machine.warp->lanes[machine.lane];
  thread.at = at;
  switch_fibres(*thread.fibre, machine.host);
}

inline void wait_for_block() { wait(At::kBarrier); }

template <class T>
T exchange(T value, int from) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  Warp& warp = *machine.warp;
  std::memcpy(&warp.values[warp.coming][machine.lane], &value, sizeof value);
  wait(At::kShuffle);
  T result;
  std::memcpy(&result, &warp.values[!warp.coming][from], sizeof result);
  return result;
}

[[noreturn]] inline void run_threads() {
  for (;;) {
    machine.call(machine.kernel);
    wait(At::kEnd);  // and switch to another thread
  }
}

// Each lane runs until it waits, and all wait at the same.
inline At advance(Warp& warp, std::mt19937& chance) {
  const unsigned drawn = chance(), step = drawn | 1;  // an odd one reaches every lane
  machine.warp = &warp;
  for (unsigned k = 0; k < kWarp; ++k) {
    machine.lane = static_cast<int>((k * step + (drawn >> 8)) % kWarp);
    Thread& thread = warp.lanes[machine.lane];
    if (!thread.fibre) {
      if (machine.idle.empty()) machine.idle.push_back(make_fibre(run_threads));
      thread.fibre = machine.idle.back();
      machine.idle.pop_back();
    }
    threadIdx = thread.index;
    switch_fibres(machine.host, *thread.fibre);
    if (thread.at == At::kEnd) machine.idle.push_back(std::exchange(thread.fibre, nullptr));
  }
  const At at = warp.lanes[0].at;
  for (const Thread& thread : warp.lanes) {
    if (thread.at == at) continue;
    const bool shuffles = thread.at == At::kShuffle || at == At::kShuffle;
    fail(shuffles ? "a shuffle waits for ever, since not all threads of the warp come to it"
                  : "a barrier waits for ever, since not all threads of the block come to it");
  }
  if (at == At::kShuffle) warp.coming = !warp.coming;
  return at;
}

inline void run_block(std::mt19937& chance) {
  std::vector<Warp*> going;
  At at;
  do {
    for (Warp& warp : machine.warps) going.push_back(&warp);
    at = At::kNothing;
    while (!going.empty()) {
      std::swap(going[chance() % going.size()], going.back());
      At reached;
      do reached = advance(*going.back(), chance);
      while (reached == At::kShuffle && chance() % 8);
      if (reached == At::kShuffle) continue;
      going.pop_back();
      if (at != At::kNothing && reached != at)
        fail("a barrier waits for ever, since not all threads of the block come to it");
      at = reached;
    }
  } while (at == At::kBarrier);
}

template <class Kernel>
void run(dim3 grid, dim3 shape, const std::vector<unsigned>& order, const Kernel& kernel, std::mt19937& chance) {
  machine.call = [](const void* it) { (*static_cast<const Kernel*>(it))(); };
  machine.kernel = &kernel;
  machine.warps.assign(size_t(shape.x) * shape.y * shape.z / kWarp, Warp{});
  unsigned number = 0;
  for (Warp& warp : machine.warps)
    for (Thread& thread : warp.lanes) thread.index = place_in(shape, number++);
  blockDim = shape;
  gridDim = grid;
  for (const unsigned at : order) {
    blockIdx = place_in(grid, at);
    run_block(chance);
  }
}

}  // namespace emulator
