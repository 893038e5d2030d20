// Whether each plan can be captured, and into what: tried on a plain stream, before any graph is built. See
// runtime/gpu/trial.py.
//
// A capture that fails invalidates the graph that it belongs to, and ending an invalidated capture of a conditional
// body crashes in the driver (NVIDIA/cuda-python #2918). A capture that stands alone can fail without harm.
#pragma once

#include <set>

#include "gpu/program.h"

namespace dovit::runtime {

// A segment of a program, by its number and the tokens that it runs on.
using SegmentKey = std::pair<size_t, int64_t>;

struct Obstacles {
  std::vector<std::string> sentences;  // why plans cannot be part of a graph with SWITCH nodes
  std::set<SegmentKey> uncapturable;   // segments with a plan that cannot be part of any graph
};

// Captures every plan of a warmed-up program at every capacity, each by itself. The stream has to be idle.
Obstacles find_obstacles(const LoadedProgram& program, const Stream& stream);

}  // namespace dovit::runtime
