// CUDA graphs, built by stream capture, and which nodes they may have.
//
// The body of a conditional node may hold kernel, memcpy, memset, empty, child graph and conditional nodes. For any
// other node CUDA returns an "invalid" error, in part only at launch, so captured graphs are checked first. The capture
// mode is relaxed: other threads, and TensorRT, may allocate meanwhile.
#pragma once

#include <functional>
#include <vector>

#include "gpu/device.h"
#include "non_copyable.h"

namespace dovit::runtime {

// The dependencies of the nodes that are added to a graph next.
struct Dependencies {
  std::vector<CUgraphNode> nodes;
  std::vector<CUgraphEdgeData> edges;
};

// A CUDA graph, and once it is instantiated its executable graph.
class Graph : NonCopyable {
 public:
  // An empty one, to be filled by the functions below and instantiated.
  explicit Graph(DevicePtr device);
  // What `work` queues on `stream`, instantiated.
  Graph(DevicePtr device, CUstream stream, const std::function<void()>& work);
  ~Graph();

  CUgraph get() const { return graph_; }
  void instantiate();
  void launch(CUstream stream) const;

 private:
  struct Nothing {};
  Graph(DevicePtr device, Nothing) : device_(std::move(device)) {}  // delegated to, so that the destructor runs

  const DevicePtr device_;
  CUgraph graph_ = nullptr;
  CUgraphExec ready_ = nullptr;
};

// Captures what `work` queues on `stream` into `graph`, after `before`; returns the dependencies of what comes next.
// Needs Device::can_switch.
Dependencies capture_into(const Device& device, CUgraph graph, const Dependencies& before, CUstream stream,
                          const std::function<void()>& work);

// A conditional handle for a SWITCH node of `graph`, which kernels set; every launch begins with `value`.
CUgraphConditionalHandle add_condition(const Device& device, CUgraph graph, unsigned value);

// A SWITCH node, and the graphs of its bodies, still empty.
struct Switch {
  Dependencies node;
  std::vector<CUgraph> bodies;
};
Switch add_switch(const Device& device, CUgraph graph, const Dependencies& before, CUgraphConditionalHandle condition,
                  size_t count);

// Captures what `work` queues on `stream` and discards it: what it holds that the body of a SWITCH node may not, in
// words, empty where there is none. Throws DovitError where it cannot be captured; the stream is usable after it.
std::string unsupported_nodes(const Device& device, CUstream stream, const std::function<void()>& work);

// Throws DovitError where `graph`, which is `what`, holds what the body of a SWITCH node may not.
void check_nodes(const Device& device, CUgraph graph, const std::string& what);

}  // namespace dovit::runtime
