// Stream capture: work that is queued on a stream becomes nodes of a graph.
#pragma once

#include "cuda_graph.h"
#include "cuda_stream.h"

namespace stand_in {

// Adds a node after the last ones of a capture.
CUresult record(Capture& capture, CUgraphNodeType type, Work work);

// The same for a whole graph.
CUresult record_child(Capture& capture, const Graph& child);

// For calls that cannot be captured (allocating, freeing): returns an error and invalidates the capture where the
// capture mode forbids them, which is any mode but relaxed in this thread, and global mode in any thread.
CUresult refuse_in_capture();

}  // namespace stand_in
