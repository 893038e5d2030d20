// An executable graph: a snapshot of the graph at instantiation.
#pragma once

#include "cuda_graph.h"

namespace stand_in {

struct Step;
using Sequence = std::vector<Step>;

struct Step {
  Work work;
  std::shared_ptr<Condition> condition;
  std::vector<Sequence> inner;  // a SWITCH's bodies, or the child graph
};

struct Exec {
  std::shared_ptr<Graph> graph;
  Sequence sequence;
  std::vector<std::shared_ptr<Condition>> conditions;
  std::mutex one_at_a_time;
};

}  // namespace stand_in
