#include "chain/buffers.h"

#include <algorithm>
#include <set>

#include "errors.h"

namespace dovit::runtime {

BufferPlan plan_buffers(const Manifest& manifest) {
  const Dimensions dims = full_dims(manifest);
  std::map<std::string, size_t> needed;  // tensor -> the last step that reads it
  std::set<std::string> keeps;
  for (size_t number = 0; number < manifest.steps.size(); ++number)
    for (const TensorSpec& spec : manifest.steps[number].inputs) needed[spec.name] = number;
  for (const DecisionSpec& decision : manifest.decisions) keeps.insert(decision.keep);

  BufferPlan plan;
  std::vector<size_t> busy_until;
  for (size_t number = 0; number + 1 < manifest.steps.size(); ++number) {  // the last step's results are the caller's
    for (const TensorSpec& spec : manifest.steps[number].outputs) {
      if (keeps.count(spec.name)) continue;
      const size_t size = Tensor{dtype_of(spec), resolve(spec, dims), nullptr, nullptr}.bytes();
      size_t chosen = plan.sizes.size(), difference = SIZE_MAX;
      for (size_t slot = 0; slot < busy_until.size(); ++slot) {
        const size_t apart = std::max(plan.sizes[slot], size) - std::min(plan.sizes[slot], size);
        if (busy_until[slot] < number && apart < difference) chosen = slot, difference = apart;
      }
      if (chosen == plan.sizes.size()) {
        plan.sizes.push_back(0);
        busy_until.push_back(0);
      }
      plan.slot[spec.name] = chosen;
      plan.sizes[chosen] = std::max(plan.sizes[chosen], size);
      const auto last = needed.find(spec.name);
      busy_until[chosen] = last == needed.end() ? number : last->second;  // a step's outputs never share memory
    }
  }
  return plan;
}

Workspace::Workspace(const BufferPlan& plan) : plan_(plan) {
  for (const size_t size : plan.sizes) slots_.push_back(make_tensor(DType::kUint8, {static_cast<int64_t>(size)}));
}

Tensor Workspace::place(const TensorSpec& spec, const Dimensions& dims) const {
  const Tensor& slot = slots_[plan_.slot.at(spec.name)];
  Tensor placed{dtype_of(spec), resolve(spec, dims), slot.data, nullptr};
  if (placed.bytes() > slot.bytes())
    throw DovitError(text("tensor ", spec.name, " needs ", placed.bytes(), " bytes, and its place has ", slot.bytes()));
  return placed;
}

}  // namespace dovit::runtime
