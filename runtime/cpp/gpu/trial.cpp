#include "gpu/trial.h"

#include "errors.h"
#include "gpu/graph.h"

namespace dovit::runtime {

Obstacles find_obstacles(const LoadedProgram& program, const Stream& stream) {
  Obstacles found;
  for (const SizedPlan& sized : program.sized_plans()) {
    const std::string what = text(sized.plan->name, " with ", sized.tokens, " tokens ");
    const std::string reason = program.why_not_capturable(sized, stream.get());
    try {
      if (!reason.empty()) throw DovitError(reason);
      const std::string unsupported =
          unsupported_nodes(program.device(), stream.get(), [&] { program.enqueue_plan(sized, stream.get()); });
      if (!unsupported.empty())
        found.sentences.push_back(
            text(what, "cannot be in the body of a SWITCH node: its capture holds ", unsupported));
    } catch (const DovitError& error) {
      found.sentences.push_back(text(what, "cannot be captured: ", error.what()));
      found.uncapturable.insert({sized.segment, sized.tokens});
    }
  }
  return found;
}

}  // namespace dovit::runtime
