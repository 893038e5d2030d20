#include "cuda_exec.h"

#include <algorithm>
#include <set>

#include "cuda_capture.h"
#include "cuda_functions.h"

namespace stand_in {

namespace {

constexpr unsigned kUnspecified = 1;  // value of a conditional handle without a default: some body runs

bool is_allowed_in_body(CUgraphNodeType type) {
  return type == CU_GRAPH_NODE_TYPE_KERNEL || type == CU_GRAPH_NODE_TYPE_MEMCPY || type == CU_GRAPH_NODE_TYPE_MEMSET ||
         type == CU_GRAPH_NODE_TYPE_EMPTY || type == CU_GRAPH_NODE_TYPE_GRAPH || type == CU_GRAPH_NODE_TYPE_CONDITIONAL;
}

// Of the nodes that are ready, the newest: a missing dependency then shows as a wrong result.
std::vector<std::shared_ptr<Node>> ordered(const Graph& graph) {
  std::vector<CUgraphNode> left = graph.nodes;
  std::set<CUgraphNode> done;
  std::vector<std::shared_ptr<Node>> order;
  while (!left.empty()) {
    const auto next = std::find_if(left.rbegin(), left.rend(), [&](CUgraphNode handle) {
      const auto node = state().nodes.find(handle);
      return std::all_of(node->after.begin(), node->after.end(), [&](CUgraphNode one) { return done.count(one); });
    });
    done.insert(*next);
    order.push_back(state().nodes.find(*next));
    left.erase(std::next(next).base());
  }
  return order;
}

// False where the graph cannot be instantiated.
bool take(const Graph& graph, bool in_body, Exec& exec, Sequence& sequence) {
  if (graph.captures) return false;
  for (const auto& condition : graph.conditions)
    if (!condition->is_used) return false;
  exec.conditions.insert(exec.conditions.end(), graph.conditions.begin(), graph.conditions.end());
  for (const auto& node : ordered(graph)) {
    if (in_body && !is_allowed_in_body(node->type)) return false;
    sequence.push_back({node->work, node->condition, {}});
    Step& step = sequence.back();
    step.inner.resize(node->inner.size());
    for (size_t k = 0; k < node->inner.size(); ++k) {
      const bool is_body = in_body || node->type == CU_GRAPH_NODE_TYPE_CONDITIONAL;
      if (!take(*state().graphs.find(node->inner[k]), is_body, exec, step.inner[k])) return false;
    }
  }
  return true;
}

void run(const Sequence& sequence) {
  for (const Step& step : sequence) {
    if (step.work) step.work();
    const unsigned chosen = step.condition ? step.condition->value : 0;
    if (chosen < step.inner.size()) run(step.inner[chosen]);
  }
}

}  // namespace

CUresult graph_instantiate_with_flags(CUgraphExec* handle, CUgraph graph_handle, unsigned long long flags) {
  const Call call("cuGraphInstantiateWithFlags", kContext);
  if (call.refused) return call.refused;
  const auto graph = state().graphs.find(graph_handle);
  if (!graph || flags) return CUDA_ERROR_INVALID_VALUE;
  auto exec = std::make_shared<Exec>();
  exec->graph = graph;
  if (!take(*graph, false, *exec, exec->sequence)) return CUDA_ERROR_INVALID_VALUE;
  *handle = state().execs.add(std::move(exec));
  return CUDA_SUCCESS;
}

CUresult graph_launch(CUgraphExec handle, CUstream stream_handle) {
  const Call call("cuGraphLaunch", kContext);
  if (call.refused) return call.refused;
  const auto exec = state().execs.find(handle);
  const auto stream = stream_of(stream_handle);
  if (!exec || !stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    if (!state().graphs.find(exec->graph->handle))
      return CUDA_ERROR_NOT_SUPPORTED;  // by this stand-in: the graph was destroyed
    return record_child(*stream->capture, *exec->graph);
  }
  return submit(stream_handle, CU_GRAPH_NODE_TYPE_GRAPH, [exec] {
    const std::lock_guard<std::mutex> turn(exec->one_at_a_time);
    for (const auto& condition : exec->conditions)
      condition->value = condition->has_default ? condition->at_launch : kUnspecified;
    run(exec->sequence);
  });
}

CUresult graph_exec_destroy(CUgraphExec handle) {
  const Call call("cuGraphExecDestroy", kDriver, kAfterwards);
  if (call.refused) return call.refused;
  if (!state().execs.find(handle)) return CUDA_ERROR_INVALID_HANDLE;
  state().execs.remove(handle);
  return call.outcome;
}

}  // namespace stand_in
