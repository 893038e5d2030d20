#include "gpu/trial.h"

#include "errors.h"
#include "gpu/graph.h"

namespace dovit::runtime {

Obstacles find_obstacles(const Program& program, const Stream& stream) {
  Obstacles found;
  for (const PlanSizes& sizes : program.plan_sizes()) {
    const std::string what = text(sizes.step->name, " with ", sizes.tokens, " tokens ");
    try {
      const std::string foreign =
          foreign_nodes(program.device(), stream.get(), [&] { program.enqueue_plan(sizes, stream.get()); });
      if (!foreign.empty())
        found.sentences.push_back(text(what, "cannot be in the body of a SWITCH node: its capture holds ", foreign));
    } catch (const DovitError& error) {
      found.sentences.push_back(text(what, "cannot be captured: ", error.what()));
      found.uncapturable.insert({sizes.number, sizes.kept});
    }
  }
  return found;
}

}  // namespace dovit::runtime
