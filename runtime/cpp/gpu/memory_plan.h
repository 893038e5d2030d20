// Where every tensor of a pass lies on the device: one block, planned from the order of the steps before anything is
// allocated. Two tensors share memory if no step needs both. All positions' latest tokens, `full`, are one place that
// each gather changes, and so are the sums of the stopped ones. What the caller reads afterwards has a place of its
// own, in one piece.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "bundle/manifest.h"

namespace dovit::runtime {

// Offsets in one block of `size` bytes, by tensor name; the results lie in its first `results` bytes.
struct MemoryPlan {
  std::map<std::string, size_t> offsets;
  std::map<std::string, size_t> bytes;  // of every tensor at its largest, all tokens kept
  size_t size = 0, results = 0;
};

// Places that no step's tensor has a name for. Decisions are counted from 1.
std::string capacity_place(size_t decision);  // the capacity that it chose, int32
std::string slots_place(size_t decision);     // every token's slot after it, [M] int32
std::string staying_place(size_t decision);   // how many tokens stay by themselves, int32
inline const std::string kImage = "image", kThresholds = "thresholds", kCapacities = "capacities",
                         kNoneStopped = "stopped_count0",
                         kOnlyCapacity = "only_capacity",  // of a decision that is to keep a given number, int64
    kSpareCount = "spare_count",                           // where a count goes that nobody asks for, int64
    kScratch = "scratch";

// The next multiple of what the CUDA allocator aligns to.
size_t aligned(size_t bytes);

// Plan for one image; `scratch` bytes are what engines and kernels need besides, one region for all.
MemoryPlan plan_memory(const Manifest& manifest, const std::vector<PlanStep>& steps, size_t scratch);

// Which decision, from 1, a decide step is. Throws DovitError where it is none of the manifest's.
size_t decision_number(const Manifest& manifest, const PlanStep& step);

}  // namespace dovit::runtime
