// A plan set's steps, grouped by the decision that settles their sizes.
//
// Segment 0 runs on all tokens: the stem, and the first decision. Segment n runs on what decision n has left: its
// gather, its block, the next decision; the last one ends with the reconstruction. What comes after runs on all
// positions again: the decoder.
#pragma once

#include <vector>

#include "bundle/manifest.h"

namespace dovit::runtime {

using Steps = std::vector<const PlanStep*>;

struct Segments {
  std::vector<Steps> after;  // [n]: the steps whose sizes decision n settles, n = 0 for those that see all tokens
  Steps decoder;
};

// Groups `steps`, which are in running order.
Segments cut_segments(const std::vector<PlanStep>& steps, size_t decisions);

}  // namespace dovit::runtime
