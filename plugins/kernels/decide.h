// Which tokens of an image stay: those with confidence ≤ ξ or NaN, filled up to the capacity with the stopping ones of
// lowest confidence, ties by lower index. The selection is a radix select: four histograms over the bytes of the
// confidences find the confidence at which the filling ends, and two prefix sums over the tokens put the kept ones in
// order. Nothing in it depends on the order in which threads run, so the kept set is the same every time, and the same
// as the CPU's.
#pragma once

#include <cstdint>
#include <cstring>

#include "team.h"

namespace dovit {

constexpr int kDecideThreads = 1024;
constexpr int kStopped = -1;  // in `slots`: this token does not stay

// What the threads of a block share while they decide.
struct DecideShared {
  int counts[kDecideThreads];
  int histogram[256];
  int scratch[33];
  int tied;        // confidences equal to the last one that is filled in are `tied_before` … of them
  uint32_t limit;  // the key at which the filling ends
  int below;       // how many stopping tokens lie below it
};

// Floats as integers in the same order; -0 and +0 are equal, so they get the same key.
DOVIT_HD uint32_t ordered_key(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (bits == 0x80000000u) bits = 0;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

DOVIT_HD bool stays(float confidence, float threshold) { return !(confidence > threshold); }

// How many of `count` tokens stay by themselves.
template <class Team>
DOVIT_HD int count_staying(Team& team, DecideShared& shared, const float* confidence, int count, float threshold) {
  team.each([&](int thread) {
    int staying = 0;
    for (int token = thread; token < count; token += team.threads) staying += stays(confidence[token], threshold);
    shared.counts[thread] = staying;
  });
  return team.exclusive_sums(shared.counts, shared.scratch);
}

// The smallest of `capacities` (ascending, the last holds all) that holds `staying`; `staying` itself where there are
// none.
DOVIT_HD int capacity_for(int staying, const int64_t* capacities, int capacity_count) {
  for (int k = 0; k < capacity_count; ++k)
    if (capacities[k] >= staying) return static_cast<int>(capacities[k]);
  return staying;
}

// Finds shared.limit, shared.below and shared.tied: of the stopping tokens, all with a key below the limit are filled
// in, and the first `tied` of those that have it. `fill` ≥ 1 is at most the number of stopping tokens.
template <class Team>
DOVIT_HD void find_limit(Team& team, DecideShared& shared, const float* confidence, int count, float threshold,
                         int fill) {
  uint32_t prefix = 0, mask = 0;
  int left = fill;  // still to be filled in among the keys that share the prefix
  for (int shift = 24; shift >= 0; shift -= 8) {
    team.each([&](int thread) {
      for (int bin = thread; bin < 256; bin += team.threads) shared.histogram[bin] = 0;
    });
    team.each([&](int thread) {
      for (int token = thread; token < count; token += team.threads) {
        if (stays(confidence[token], threshold)) continue;
        const uint32_t key = ordered_key(confidence[token]);
        if ((key & mask) == prefix) team.add(&shared.histogram[key >> shift & 255], 1);
      }
    });
    int bin = 0;  // every thread goes through the same 256 numbers: no barrier, and all know the result
    for (int before = 0; bin < 255 && before + shared.histogram[bin] < left; ++bin) before += shared.histogram[bin];
    for (int k = 0; k < bin; ++k) left -= shared.histogram[k];
    prefix |= static_cast<uint32_t>(bin) << shift;
    mask |= 255u << shift;
    team.each([](int) {});  // the histogram is read by all before it is cleared
  }
  team.each([&](int thread) {
    if (thread != 0) return;
    shared.limit = prefix;
    shared.tied = left;
    shared.below = fill - left;
  });
}

// Writes `keep` [capacity], ascending positions among the `count` tokens, and `slots` [count], each token's place in it
// or kStopped. `staying` is what count_staying found, `capacity` lies between it and `count`.
template <class Team>
DOVIT_HD void decide_image(Team& team, DecideShared& shared, const float* confidence, int count, float threshold,
                           int staying, int capacity, int* keep, int* slots) {
  const int fill = capacity - staying;
  if (fill > 0) find_limit(team, shared, confidence, count, threshold, fill);
  // a thread takes neighbouring tokens, so that sums over threads are sums over positions
  const int share = (count + team.threads - 1) / team.threads;

  if (fill > 0) {  // how many tied tokens lie before each thread's share
    team.each([&](int thread) {
      int tied = 0;
      for (int token = thread * share; token < (thread + 1) * share && token < count; ++token)
        tied += !stays(confidence[token], threshold) && ordered_key(confidence[token]) == shared.limit;
      shared.counts[thread] = tied;
    });
    team.exclusive_sums(shared.counts, shared.scratch);
  }
  team.each([&](int thread) {
    int tied = fill > 0 ? shared.counts[thread] : 0, kept = 0;
    for (int token = thread * share; token < (thread + 1) * share && token < count; ++token) {
      bool keeps = stays(confidence[token], threshold);
      if (!keeps && fill > 0) {
        const uint32_t key = ordered_key(confidence[token]);
        keeps = key < shared.limit || (key == shared.limit && tied++ < shared.tied);
      }
      slots[token] = keeps ? kept++ : kStopped;
    }
    shared.counts[thread] = kept;
  });
  team.exclusive_sums(shared.counts, shared.scratch);
  team.each([&](int thread) {
    for (int token = thread * share; token < (thread + 1) * share && token < count; ++token) {
      if (slots[token] == kStopped) continue;
      slots[token] += shared.counts[thread];
      keep[slots[token]] = token;
    }
  });
}

// The slot of one token, from the ascending list of the kept ones.
DOVIT_HD int slot_in(const int* keep, int capacity, int token) {
  int low = 0, high = capacity;  // the place lies in low … high, if there is one
  while (low < high) {
    const int middle = (low + high) / 2;
    if (keep[middle] < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < capacity && keep[low] == token ? low : kStopped;
}

}  // namespace dovit
