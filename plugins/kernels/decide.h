// Which tokens of an image stay: those with confidence ≤ ξ or NaN, filled up to the capacity with the stopping ones of
// lowest confidence, ties by lower index.
//
// Every token has a key: 0 if it stays by itself, else its confidence as an integer of the same order. Then the kept
// ones are the K smallest keys, ties by index. A radix select finds the largest of those, the limit: histograms over a
// few bits at a time, from the top, of what lies between the least and the greatest key. Two prefix sums over the
// tokens then put the kept ones in order. Nothing in it depends on the order in which threads run, so the kept set is
// the same every time, and the same as the CPU's.
#pragma once

#include <stddef.h>

#include <cstdint>
#include <cstring>

#include "team.h"

namespace dovit {

constexpr int kDecideThreads = 1024;
constexpr int kStopped = -1;       // in `slots`: this token does not stay
constexpr int kSharedKeys = 8192;  // images of more tokens keep their keys in global memory
constexpr int kDigitBits = 11;     // what is left of 48 KB beside the keys; two digits hold all floats from 0.75 to 1
constexpr int kBins = 1 << kDigitBits;

// What the threads of a block share while they decide.
struct DecideShared {
  uint32_t keys[kSharedKeys];
  int histogram[kBins];  // all zero between two digits; at the end, ties by thread
  int counts[kDecideThreads];
  int scratch[33];
  int staying;               // tokens that stay by themselves
  uint32_t least, greatest;  // of the keys of the others
  int choice;                // the number of the chosen capacity
  int bin, before, inside;   // where the limit lies in a histogram, and how many keys lie before and in that bin
};
static_assert(sizeof(DecideShared) <= 48 * 1024, "more than a block gets without being asked for");
static_assert(kBins >= kDecideThreads, "the histogram is also a place for a number a thread");

// Where an image's keys lie: where there is no room in shared memory, where its slots will be.
DOVIT_HD uint32_t* keys_of(DecideShared& shared, int count, int* slots) {
  return count <= kSharedKeys ? shared.keys : reinterpret_cast<uint32_t*>(slots);
}

DOVIT_HD bool stays(float confidence, float threshold) { return !(confidence > threshold); }

// 0 for a token that stays; else, in the order of the confidences, at least 0x00800000: that of the lowest float, since
// −∞ lies above no threshold. −0 and +0 are equal, so they have the same key.
DOVIT_HD uint32_t key_of(float confidence, float threshold) {
  if (stays(confidence, threshold)) return 0;
  uint32_t bits;
  memcpy(&bits, &confidence, sizeof bits);
  if (bits == 0x80000000u) bits = 0;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

DOVIT_HD int bit_length(uint32_t value) {
#ifdef __CUDA_ARCH__
  return 32 - __clz(static_cast<int>(value));
#else
  return value ? 32 - __builtin_clz(value) : 0;
#endif
}

// Writes the keys of `count` tokens; returns how many of the tokens stay by themselves.
template <class Team>
DOVIT_HD int make_keys(Team& team, DecideShared& shared, const float* confidence, int count, float threshold,
                       uint32_t* keys) {
  team.each([&](int thread) {
    for (int bin = thread; bin < kBins; bin += team.threads) shared.histogram[bin] = 0;
    if (thread != 0) return;
    shared.staying = 0;
    shared.least = 0xffffffffu;
    shared.greatest = 0;
  });
  team.each([&](int thread) {
    constexpr int kAhead = 8;  // loads under way at a time: all of a thread's, up to 8192 tokens
    int staying = 0;
    uint32_t least = 0xffffffffu, greatest = 0;
    for (int first = thread; first < count; first += kAhead * team.threads) {
      float ahead[kAhead];
      DOVIT_UNROLL
      for (int k = 0; k < kAhead; ++k) {
        const int token = first + k * team.threads;
        ahead[k] = confidence[token < count ? token : first];
      }
      DOVIT_UNROLL
      for (int k = 0; k < kAhead; ++k) {
        const int token = first + k * team.threads;
        if (token >= count) break;
        const uint32_t key = keys[token] = key_of(ahead[k], threshold);
        staying += key == 0;
        if (key != 0 && key < least) least = key;
        if (key > greatest) greatest = key;
      }
    }
    team.sum(&shared.staying, staying);
    team.least(&shared.least, least);
    team.greatest(&shared.greatest, greatest);
  });
  return shared.staying;
}

// How many of `count` tokens stay by themselves.
template <class Team>
DOVIT_HD int count_staying(Team& team, int& shared, const float* confidence, int count, float threshold) {
  team.each([&](int thread) {
    if (thread == 0) shared = 0;
  });
  team.each([&](int thread) {
    int staying = 0;
    for (int token = thread; token < count; token += team.threads) staying += stays(confidence[token], threshold);
    team.sum(&shared, staying);
  });
  return shared;
}

// The smallest of `capacities` (ascending, the last holds all) that holds `staying`, with its number in shared.choice;
// `staying` itself where there are none. Every capacity is looked at by a thread of its own: one wait for memory.
template <class Team>
DOVIT_HD int choose_capacity(Team& team, DecideShared& shared, int staying, const int64_t* capacities,
                             int capacity_count) {
  team.each([&](int thread) {
    if (thread == 0) shared.choice = capacity_count;
  });
  team.each([&](int thread) {
    for (int k = thread; k < capacity_count; k += team.threads)
      if (capacities[k] >= staying && (k == 0 || capacities[k - 1] < staying)) shared.choice = k;
  });
  return shared.choice < capacity_count ? static_cast<int>(capacities[shared.choice]) : staying;
}

// The kept tokens: those with a key below `key`, and the first `ties` of those that have it.
struct Limit {
  uint32_t key;
  int ties;
};

// The limit at which `fill` ≥ 1 of the `stopping` tokens, those with a key other than 0, are filled in.
template <class Team>
DOVIT_HD Limit find_limit(Team& team, DecideShared& shared, const uint32_t* keys, int count, int stopping, int fill) {
  const uint32_t least = shared.least, range = shared.greatest - least;
  uint32_t prefix = 0;                  // the limit's upper bits, counted from `least`
  int shift = bit_length(range);        // how many bits are below those
  int left = fill, inside = stopping;   // of the keys with that prefix: still to be filled in, and all
  while (shift > 0 && left < inside) {  // once all of them are filled in, the last key with that prefix is a limit
    const int digit = shift < kDigitBits ? shift : kDigitBits;
    shift -= digit;
    team.each([&](int thread) {
      for (int token = thread; token < count; token += team.threads) {
        const uint32_t key = keys[token], bits = (key - least) >> shift;
        if (key != 0 && bits >> digit == prefix) team.count(&shared.histogram[bits & ((1u << digit) - 1)]);
      }
    });
    const int share = (kBins + team.threads - 1) / team.threads;
    team.each([&](int thread) {
      int sum = 0;
      for (int k = 0; k < share; ++k) {
        const int bin = thread * share + k;
        if (bin < kBins) sum += shared.histogram[bin];
      }
      shared.counts[thread] = sum;
    });
    team.exclusive_sums(shared.counts, shared.scratch);
    team.each([&](int thread) {
      int before = shared.counts[thread];
      for (int k = 0; k < share; ++k) {
        const int bin = thread * share + k;
        if (bin >= kBins) break;
        const int own = shared.histogram[bin];
        if (before < left && left <= before + own) {  // true of one bin
          shared.bin = bin;
          shared.before = before;
          shared.inside = own;
        }
        before += own;
        shared.histogram[bin] = 0;
      }
    });
    prefix = prefix << digit | static_cast<uint32_t>(shared.bin);
    left -= shared.before;
    inside = shared.inside;
  }
  const uint64_t last = ((uint64_t{prefix} + 1) << shift) - 1;  // 33 bits, if no digit was needed
  return {least + (last < range ? static_cast<uint32_t>(last) : range), left};
}

// Writes `keep`, the positions of the kept tokens, ascending, and `slots` [count], each token's place in it or
// kStopped. `keys` may be the memory of `slots`.
template <class Team>
DOVIT_HD void place_tokens(Team& team, DecideShared& shared, uint32_t* keys, int count, Limit limit, int* keep,
                           int* slots) {
  // A thread takes neighbouring tokens, so that sums over threads are sums over positions. An odd number of them: then
  // the threads of a warp, one share apart, read 32 different banks of shared memory.
  const int share = (count + team.threads - 1) / team.threads | 1;
  int *below = shared.counts, *ties = shared.histogram;
  team.each([&](int thread) {
    int below_own = 0, ties_own = 0;
    for (int token = thread * share; token < (thread + 1) * share && token < count; ++token) {
      below_own += keys[token] < limit.key;
      ties_own += keys[token] == limit.key;
    }
    below[thread] = below_own;
    ties[thread] = ties_own;
  });
  team.exclusive_sums(below, shared.scratch);
  team.exclusive_sums(ties, shared.scratch);
  team.each([&](int thread) {
    int tie = ties[thread], slot = below[thread] + (tie < limit.ties ? tie : limit.ties);
    for (int token = thread * share; token < (thread + 1) * share && token < count; ++token) {
      const bool keeps = keys[token] < limit.key || (keys[token] == limit.key && tie++ < limit.ties);
      keys[token] = static_cast<uint32_t>(keeps ? slot++ : kStopped);
    }
  });
  team.each([&](int thread) {  // neighbouring threads write neighbouring tokens
    for (int token = thread; token < count; token += team.threads) {
      const int slot = static_cast<int>(keys[token]);
      slots[token] = slot;
      if (slot != kStopped) keep[slot] = token;
    }
  });
}

// What follows make_keys: `staying` is what it returned, `capacity` lies between that and `count`.
template <class Team>
DOVIT_HD void decide_image(Team& team, DecideShared& shared, uint32_t* keys, int count, int staying, int capacity,
                           int* keep, int* slots) {
  const int fill = capacity - staying;
  const Limit limit = fill > 0 ? find_limit(team, shared, keys, count, count - staying, fill) : Limit{0, staying};
  place_tokens(team, shared, keys, count, limit, keep, slots);
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
