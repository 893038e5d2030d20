#include "chain/executor.h"

#include "errors.h"

namespace dovit::runtime {

namespace {

void check(const std::vector<int32_t>& indices, int64_t limit, const std::string& name) {
  for (const int32_t index : indices)
    if (index < 0 || index >= limit) throw DovitError(text("tensor ", name, " points outside the image"));
}

}  // namespace

void check_indices(const Decided& decided, const DecisionSpec& decision, int64_t tokens) {
  check(decided.index, tokens, decision.state.index);
  check(decided.keep, static_cast<int64_t>(decided.index.size()), decision.keep);
  if (decided.confidence.size() != decided.index.size())
    throw DovitError(text("tensors ", decision.confidence, " and ", decision.state.index, " differ in size"));
}

}  // namespace dovit::runtime
