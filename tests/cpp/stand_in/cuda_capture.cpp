#include "cuda_capture.h"

#include "cuda_functions.h"

namespace stand_in {

namespace {

CUresult begin(Stream& stream, const std::shared_ptr<Graph>& graph, bool is_own, std::vector<CUgraphNode> last,
               CUstreamCaptureMode mode) {
  static cuuint64_t captures = 0;
  ++graph->captures;
  stream.capture = std::make_shared<Capture>(
      Capture{graph, graph->handle, is_own, mode, std::this_thread::get_id(), ++captures, std::move(last)});
  return CUDA_SUCCESS;
}

}  // namespace

CUresult record(Capture& capture, CUgraphNodeType type, Work work) {
  if (capture.invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  Node node{type, {}, {}, std::move(work), {}, {}};
  const auto made = add_node(*capture.graph, capture.last.data(), capture.last.size(), std::move(node));
  if (!made) return CUDA_ERROR_INVALID_VALUE;
  capture.last = {made};
  return CUDA_SUCCESS;
}

CUresult record_child(Capture& capture, const Graph& child) {
  if (capture.invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  const auto made = add_child(*capture.graph, capture.last.data(), capture.last.size(), child);
  if (!made) return CUDA_ERROR_NOT_SUPPORTED;
  capture.last = {made};
  return CUDA_SUCCESS;
}

CUresult refuse_in_capture() {
  bool refused = false;
  for (const auto& [handle, stream] : state().streams.all()) {
    if (!stream->capture || stream->capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    const bool is_own = stream->capture->thread == std::this_thread::get_id();
    if (!is_own && stream->capture->mode != CU_STREAM_CAPTURE_MODE_GLOBAL) continue;
    refused = stream->capture->invalid = true;
  }
  return refused ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

CUresult stream_begin_capture(CUstream handle, CUstreamCaptureMode mode) {
  const Call call("cuStreamBeginCapture", kContext);
  if (call.refused) return call.refused;
  const auto stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  if (!state().streams.find(handle)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;  // the default one
  return begin(*stream, new_graph(nullptr), true, {}, mode);
}

CUresult stream_begin_capture_to_graph(CUstream handle, CUgraph graph_handle, const CUgraphNode* after,
                                       const CUgraphEdgeData*, size_t count, CUstreamCaptureMode mode) {
  const Call call("cuStreamBeginCaptureToGraph", kContext);
  if (call.refused) return call.refused;
  const auto stream = stream_of(handle);
  const auto graph = state().graphs.find(graph_handle);
  if (!stream || !graph) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  if (!state().streams.find(handle)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;  // the default one
  for (size_t k = 0; k < count; ++k) {
    const auto node = state().nodes.find(after[k]);
    if (!node || node->graph != graph_handle) return CUDA_ERROR_INVALID_VALUE;
  }
  return begin(*stream, graph, false, {after, after + count}, mode);
}

CUresult stream_end_capture(CUstream handle, CUgraph* graph) {
  const Call call("cuStreamEndCapture", kContext, kAfterwards);
  if (call.refused) return call.refused;
  const auto stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  const auto capture = stream->capture;
  if (!capture) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != std::this_thread::get_id())
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  stream->capture = nullptr;
  --capture->graph->captures;
  *graph = nullptr;
  if (capture->invalid || call.outcome) {
    if (capture->is_own) destroy(capture->graph);
    return call.outcome ? call.outcome : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  }
  *graph = capture->handle;
  return CUDA_SUCCESS;
}

CUresult stream_get_capture_info(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                 const CUgraphNode** last, const CUgraphEdgeData** edges, size_t* count) {
  const Call call("cuStreamGetCaptureInfo", kContext);
  if (call.refused) return call.refused;
  const auto stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (!status) return CUDA_ERROR_INVALID_VALUE;
  const auto capture = stream->capture;
  *status = !capture           ? CU_STREAM_CAPTURE_STATUS_NONE
            : capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                               : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_SUCCESS;
  if (id) *id = capture->id;
  if (graph) *graph = capture->handle;
  if (last) *last = capture->last.data();
  if (edges) *edges = nullptr;  // no edge has data
  if (count) *count = capture->last.size();
  return CUDA_SUCCESS;
}

}  // namespace stand_in
