// Recording what is queued on a stream as nodes of a graph.
#pragma once

#include "cuda_graph.h"
#include "cuda_stream.h"

namespace stand_in {

// Adds a node after the last ones of a recording.
CUresult record(Capture& capture, CUgraphNodeType type, Work work);

// The same for a whole graph.
CUresult record_child(Capture& capture, const Graph& child);

// What no recording hears of (allocating, freeing) is refused while one is under way that minds, and ends it: this
// thread's own unless relaxed, and any thread's global one.
CUresult refuse_in_capture();

}  // namespace stand_in
