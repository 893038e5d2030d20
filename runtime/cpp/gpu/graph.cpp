#include "gpu/graph.h"

#include <set>

#include "errors.h"

namespace dovit::runtime {

namespace {

// A node's name where it may not be in a body, else null.
const char* unsupported_kind(CUgraphNodeType type) {
  switch (type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
    case CU_GRAPH_NODE_TYPE_MEMCPY:
    case CU_GRAPH_NODE_TYPE_MEMSET:
    case CU_GRAPH_NODE_TYPE_EMPTY:
    case CU_GRAPH_NODE_TYPE_GRAPH:
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
      return nullptr;
    case CU_GRAPH_NODE_TYPE_HOST:
      return "a call of the host";
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      return "an event";
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      return "an allocation";
    default:
      return "a node of another kind";
  }
}

void collect_unsupported(const Device& device, CUgraph graph, std::set<std::string>& found) {
  size_t count = 0;
  device.check(device.driver.cuGraphGetNodes(graph, nullptr, &count), "cuGraphGetNodes");
  std::vector<CUgraphNode> nodes(count);
  if (count) device.check(device.driver.cuGraphGetNodes(graph, nodes.data(), &count), "cuGraphGetNodes");
  for (CUgraphNode node : nodes) {
    CUgraphNodeType type{};
    device.check(device.driver.cuGraphNodeGetType(node, &type), "cuGraphNodeGetType");
    if (const char* name = unsupported_kind(type)) found.insert(name);
    if (type != CU_GRAPH_NODE_TYPE_GRAPH) continue;
    CUgraph child = nullptr;
    device.check(device.driver.cuGraphChildGraphNodeGetGraph(node, &child), "cuGraphChildGraphNodeGetGraph");
    collect_unsupported(device, child, found);
  }
}

// Runs `work` and ends the capture. Where `work` throws, that is rethrown, whatever ending the capture returns.
void record(const Device& device, CUstream stream, const std::function<void()>& work, CUgraph* graph) {
  try {
    work();
  } catch (...) {
    device.driver.cuStreamEndCapture(stream, graph);
    throw;
  }
  device.check(device.driver.cuStreamEndCapture(stream, graph), "cuStreamEndCapture");
}

constexpr CUstreamCaptureMode kMode = CU_STREAM_CAPTURE_MODE_RELAXED;

std::string unsupported_nodes_in(const Device& device, CUgraph graph) {
  std::set<std::string> found;
  collect_unsupported(device, graph, found);
  return joined(found);
}

}  // namespace

Graph::Graph(DevicePtr device) : Graph(std::move(device), Nothing()) {
  device_->check(device_->driver.cuGraphCreate(&graph_, 0), "cuGraphCreate");
}

Graph::Graph(DevicePtr device, CUstream stream, const std::function<void()>& work)
    : Graph(std::move(device), Nothing()) {
  device_->check(device_->driver.cuStreamBeginCapture(stream, kMode), "cuStreamBeginCapture");
  record(*device_, stream, work, &graph_);
  instantiate();
}

Graph::~Graph() {
  const ContextGuard guard(*device_);
  if (ready_) device_->driver.cuGraphExecDestroy(ready_);
  if (graph_) device_->driver.cuGraphDestroy(graph_);
}

void Graph::instantiate() {
  device_->check(device_->driver.cuGraphInstantiateWithFlags(&ready_, graph_, 0), "cuGraphInstantiate");
}

void Graph::launch(CUstream stream) const {
  device_->check(device_->driver.cuGraphLaunch(ready_, stream), "cuGraphLaunch");
}

Dependencies capture_into(const Device& device, CUgraph graph, const Dependencies& before, CUstream stream,
                          const std::function<void()>& work) {
  device.check(device.driver.cuStreamBeginCaptureToGraph(stream, graph, before.nodes.data(), before.edges.data(),
                                                         before.nodes.size(), kMode),
               "cuStreamBeginCaptureToGraph");
  Dependencies dependencies;
  CUgraph same = nullptr;
  const auto work_and_ask = [&] {
    work();
    CUstreamCaptureStatus status{};
    const CUgraphNode* nodes = nullptr;
    const CUgraphEdgeData* edges = nullptr;
    size_t count = 0;
    device.check(device.driver.cuStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, &edges, &count),
                 "cuStreamGetCaptureInfo");
    dependencies.nodes.assign(nodes, nodes + count);
    dependencies.edges.assign(count, CUgraphEdgeData{});
    if (edges) dependencies.edges.assign(edges, edges + count);
  };
  record(device, stream, work_and_ask, &same);
  return dependencies;
}

CUgraphConditionalHandle add_condition(const Device& device, CUgraph graph, unsigned value) {
  CUgraphConditionalHandle handle = 0;
  device.check(device.driver.cuGraphConditionalHandleCreate(&handle, graph, device.context(), value,
                                                            CU_GRAPH_COND_ASSIGN_DEFAULT),
               "cuGraphConditionalHandleCreate");
  return handle;
}

Switch add_switch(const Device& device, CUgraph graph, const Dependencies& before, CUgraphConditionalHandle condition,
                  size_t count) {
  CUgraphNodeParams parameters{};
  parameters.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
  parameters.conditional.handle = condition;
  parameters.conditional.type = CU_GRAPH_COND_TYPE_SWITCH;
  parameters.conditional.size = static_cast<unsigned>(count);
  parameters.conditional.ctx = device.context();
  CUgraphNode node = nullptr;
  device.check(device.driver.cuGraphAddNode(&node, graph, before.nodes.data(), before.edges.data(), before.nodes.size(),
                                            &parameters),
               "cuGraphAddNode");
  const CUgraph* bodies = parameters.conditional.phGraph_out;
  return {{{node}, {CUgraphEdgeData{}}}, {bodies, bodies + count}};
}

std::string unsupported_nodes(const Device& device, CUstream stream, const std::function<void()>& work) {
  device.check(device.driver.cuStreamBeginCapture(stream, kMode), "cuStreamBeginCapture");
  // destroyed in the end, where the capture gave one
  struct Captured {
    const Device& device;
    CUgraph graph = nullptr;
    ~Captured() {
      if (graph) device.driver.cuGraphDestroy(graph);
    }
  } captured{device};
  record(device, stream, work, &captured.graph);
  return unsupported_nodes_in(device, captured.graph);
}

void check_nodes(const Device& device, CUgraph graph, const std::string& what) {
  const std::string unsupported = unsupported_nodes_in(device, graph);
  if (unsupported.empty()) return;
  throw DovitError(text(what, " cannot be part of a CUDA graph with SWITCH nodes: its capture holds ", unsupported,
                        "; use the segmented mode (graph = DOVIT_SEGMENTED)"));
}

}  // namespace dovit::runtime
