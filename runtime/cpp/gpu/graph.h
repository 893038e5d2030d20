// CUDA graphs, built by capture, and what may be in them.
//
// The body of a conditional node may hold kernels, copies, clearings, empty nodes, other graphs and conditional nodes.
// CUDA says no more than "invalid" about the rest, and some of it only at launch, so what was captured is checked
// first. All captures are relaxed: other threads, and TensorRT, may allocate meanwhile.
#pragma once

#include <functional>
#include <vector>

#include "gpu/device.h"
#include "not_copied.h"

namespace dovit::runtime {

// The nodes that what comes next in a graph waits for.
struct Leaves {
  std::vector<CUgraphNode> nodes;
  std::vector<CUgraphEdgeData> edges;  // how each is waited for
};

// A graph on its way, and then ready to be launched.
class Graph : NotCopied {
 public:
  // An empty one, to be filled by the functions below, and finished.
  explicit Graph(DevicePtr device);
  // What `work` queues on `stream`, finished.
  Graph(DevicePtr device, CUstream stream, const std::function<void()>& work);
  ~Graph();

  CUgraph get() const { return graph_; }
  void finish();  // nothing more is put in
  void launch(CUstream stream) const;

 private:
  struct Nothing {};
  Graph(DevicePtr device, Nothing) : device_(std::move(device)) {}  // from here on, the destructor cleans up

  const DevicePtr device_;
  CUgraph graph_ = nullptr;
  CUgraphExec ready_ = nullptr;
};

// Adds what `work` queues on `stream` to `graph`, after `before`; returns what comes last. Needs Device::can_switch.
Leaves capture_into(const Device& device, CUgraph graph, const Leaves& before, CUstream stream,
                    const std::function<void()>& work);

// A number on the device that a SWITCH node of `graph` looks at and kernels set; every launch begins with `value`.
CUgraphConditionalHandle add_condition(const Device& device, CUgraph graph, unsigned value);

// A SWITCH node, and the graphs of its bodies, which are empty yet.
struct Switch {
  Leaves node;
  std::vector<CUgraph> bodies;
};
Switch add_switch(const Device& device, CUgraph graph, const Leaves& before, CUgraphConditionalHandle condition,
                  size_t count);

// Captures what `work` queues on `stream` and discards it: what it holds that the body of a SWITCH node may not, in
// words, empty where there is none. Throws DovitError where it cannot be captured; the stream is usable after it.
std::string foreign_nodes(const Device& device, CUstream stream, const std::function<void()>& work);

// Throws DovitError where `graph`, which is `what`, holds what the body of a SWITCH node may not.
void check_nodes(const Device& device, CUgraph graph, const std::string& what);

}  // namespace dovit::runtime
