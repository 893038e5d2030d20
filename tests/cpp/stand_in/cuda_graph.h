// Graphs and their nodes.
#pragma once

#include "cuda_state.h"

namespace stand_in {

// The value that a SWITCH node tests; its handle is its address, through which an emulated kernel sets it.
struct Condition {
  unsigned value, at_launch;
  bool has_default, is_used = false;
};

struct Graph {
  CUgraph handle = nullptr;
  Graph* parent = nullptr;  // of a body or child graph: the graph with its node
  int captures = 0;         // captures into it that have not ended
  std::vector<CUgraphNode> nodes;
  std::vector<std::shared_ptr<Condition>> conditions;
};

struct Node {
  CUgraphNodeType type;
  CUgraph graph;
  std::vector<CUgraphNode> after;
  Work work;                             // what the node runs: a kernel, a copy, a host function
  std::shared_ptr<Condition> condition;  // of a SWITCH
  std::vector<CUgraph> inner;            // a SWITCH's bodies, or the child graph
};

std::shared_ptr<Graph> new_graph(Graph* parent);

// Destroys a graph, its nodes, and their body and child graphs.
void destroy(const std::shared_ptr<Graph>& graph);

// A new node; null where `after` names a node that is not in this graph.
CUgraphNode add_node(Graph& graph, const CUgraphNode* after, size_t count, Node node);

// A node that holds a copy of `child`. Null where `child` has SWITCH nodes, which cannot be copied.
CUgraphNode add_child(Graph& graph, const CUgraphNode* after, size_t count, const Graph& child);

}  // namespace stand_in
