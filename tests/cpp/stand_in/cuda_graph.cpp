#include "cuda_graph.h"

#include <algorithm>

#include "cuda_functions.h"

namespace stand_in {

namespace {

constexpr int kSwitchSince = 12080;

std::shared_ptr<Condition> condition_for(const Graph& graph, CUgraphConditionalHandle handle) {
  for (const Graph* at = &graph; at; at = at->parent)
    for (const auto& condition : at->conditions)
      if (reinterpret_cast<uintptr_t>(condition.get()) == handle) return condition;
  return nullptr;
}

CUresult add_switch(CUgraphNode* handle, Graph& graph, const CUgraphNode* after, size_t count,
                    CUDA_CONDITIONAL_NODE_PARAMS& given) {
  if (given.type != CU_GRAPH_COND_TYPE_SWITCH) return CUDA_ERROR_NOT_SUPPORTED;  // by this stand-in
  if (state().driver_version < kSwitchSince) return CUDA_ERROR_INVALID_VALUE;
  const auto condition = condition_for(graph, given.handle);
  if (!condition || condition->is_used || given.size == 0 || given.ctx != current_context())
    return CUDA_ERROR_INVALID_VALUE;
  const CUgraphNode made = add_node(graph, after, count, {CU_GRAPH_NODE_TYPE_CONDITIONAL, {}, {}, {}, condition, {}});
  if (!made) return CUDA_ERROR_INVALID_VALUE;
  condition->is_used = true;
  const auto node = state().nodes.find(made);
  for (unsigned k = 0; k < given.size; ++k) node->inner.push_back(new_graph(&graph)->handle);
  given.phGraph_out = node->inner.data();
  *handle = made;
  return CUDA_SUCCESS;
}

}  // namespace

std::shared_ptr<Graph> new_graph(Graph* parent) {
  auto graph = std::make_shared<Graph>();
  graph->parent = parent;
  graph->handle = state().graphs.add(graph);
  return graph;
}

void destroy(const std::shared_ptr<Graph>& graph) {
  for (const CUgraphNode handle : graph->nodes) {
    for (const CUgraph inner : state().nodes.find(handle)->inner) destroy(state().graphs.find(inner));
    state().nodes.remove(handle);
  }
  state().graphs.remove(graph->handle);
}

CUgraphNode add_node(Graph& graph, const CUgraphNode* after, size_t count, Node node) {
  for (size_t k = 0; k < count; ++k) {
    const auto before = state().nodes.find(after[k]);
    if (!before || before->graph != graph.handle) return nullptr;
  }
  node.graph = graph.handle;
  node.after.assign(after, after + count);
  const CUgraphNode handle = state().nodes.add(std::make_shared<Node>(std::move(node)));
  graph.nodes.push_back(handle);
  return handle;
}

CUgraphNode add_child(Graph& graph, const CUgraphNode* after, size_t count, const Graph& child) {
  for (const CUgraphNode handle : child.nodes)
    if (state().nodes.find(handle)->type == CU_GRAPH_NODE_TYPE_CONDITIONAL) return nullptr;
  const CUgraphNode made = add_node(graph, after, count, {CU_GRAPH_NODE_TYPE_GRAPH, {}, {}, {}, {}, {}});
  if (!made) return nullptr;
  const auto copy = new_graph(&graph);
  state().nodes.find(made)->inner = {copy->handle};
  std::map<CUgraphNode, CUgraphNode> copies;
  for (const CUgraphNode handle : child.nodes) {
    const auto node = state().nodes.find(handle);
    std::vector<CUgraphNode> before;
    for (const CUgraphNode one : node->after) before.push_back(copies.at(one));
    copies[handle] = node->type == CU_GRAPH_NODE_TYPE_GRAPH
                         ? add_child(*copy, before.data(), before.size(), *state().graphs.find(node->inner[0]))
                         : add_node(*copy, before.data(), before.size(), *node);
  }
  return made;
}

CUresult graph_create(CUgraph* handle, unsigned flags) {
  const Call call("cuGraphCreate", kDriver);
  if (call.refused) return call.refused;
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  *handle = new_graph(nullptr)->handle;
  return CUDA_SUCCESS;
}

CUresult graph_destroy(CUgraph handle) {
  const Call call("cuGraphDestroy", kDriver, kAfterwards);
  if (call.refused) return call.refused;
  const auto graph = state().graphs.find(handle);
  if (!graph || graph->parent || graph->captures) return CUDA_ERROR_INVALID_VALUE;
  destroy(graph);
  return call.outcome;
}

CUresult graph_add_node(CUgraphNode* handle, CUgraph graph_handle, const CUgraphNode* after, const CUgraphEdgeData*,
                        size_t count, CUgraphNodeParams* given) {
  const Call call("cuGraphAddNode", kContext);
  if (call.refused) return call.refused;
  const auto graph = state().graphs.find(graph_handle);
  if (!graph || !given) return CUDA_ERROR_INVALID_VALUE;
  if (given->type == CU_GRAPH_NODE_TYPE_CONDITIONAL)
    return add_switch(handle, *graph, after, count, given->conditional);
  if (given->type == CU_GRAPH_NODE_TYPE_EMPTY) {
    *handle = add_node(*graph, after, count, {CU_GRAPH_NODE_TYPE_EMPTY, {}, {}, {}, {}, {}});
  } else if (given->type == CU_GRAPH_NODE_TYPE_GRAPH) {
    const auto child = state().graphs.find(given->graph.graph);
    *handle = child && child != graph ? add_child(*graph, after, count, *child) : nullptr;
  } else {
    return CUDA_ERROR_NOT_SUPPORTED;  // by this stand-in: other nodes are made by stream capture
  }
  return *handle ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult graph_conditional_handle_create(CUgraphConditionalHandle* handle, CUgraph graph_handle, CUcontext context,
                                         unsigned at_launch, unsigned flags) {
  const Call call("cuGraphConditionalHandleCreate", kContext);
  if (call.refused) return call.refused;
  const auto graph = state().graphs.find(graph_handle);
  if (!graph || context != current_context() || flags & ~unsigned(CU_GRAPH_COND_ASSIGN_DEFAULT))
    return CUDA_ERROR_INVALID_VALUE;
  auto condition = std::make_shared<Condition>();
  condition->value = condition->at_launch = at_launch;
  condition->has_default = flags & CU_GRAPH_COND_ASSIGN_DEFAULT;
  *handle = reinterpret_cast<uintptr_t>(condition.get());
  graph->conditions.push_back(std::move(condition));
  return CUDA_SUCCESS;
}

CUresult graph_get_nodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  const Call call("cuGraphGetNodes", kDriver);
  if (call.refused) return call.refused;
  const auto graph = state().graphs.find(handle);
  if (!graph || !count) return CUDA_ERROR_INVALID_VALUE;
  const size_t there = graph->nodes.size();
  if (!nodes) {
    *count = there;
    return CUDA_SUCCESS;
  }
  std::fill(nodes, nodes + *count, nullptr);
  *count = std::min(*count, there);
  std::copy_n(graph->nodes.begin(), *count, nodes);
  return CUDA_SUCCESS;
}

CUresult graph_node_get_type(CUgraphNode handle, CUgraphNodeType* type) {
  const Call call("cuGraphNodeGetType", kDriver);
  if (call.refused) return call.refused;
  const auto node = state().nodes.find(handle);
  if (!node) return CUDA_ERROR_INVALID_VALUE;
  *type = node->type;
  return CUDA_SUCCESS;
}

CUresult graph_child_graph_node_get_graph(CUgraphNode handle, CUgraph* graph) {
  const Call call("cuGraphChildGraphNodeGetGraph", kDriver);
  if (call.refused) return call.refused;
  const auto node = state().nodes.find(handle);
  if (!node || node->type != CU_GRAPH_NODE_TYPE_GRAPH) return CUDA_ERROR_INVALID_VALUE;
  *graph = node->inner[0];
  return CUDA_SUCCESS;
}

}  // namespace stand_in
