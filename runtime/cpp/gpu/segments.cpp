#include "gpu/segments.h"

#include <algorithm>
#include <charconv>

#include "errors.h"

namespace dovit::runtime {

namespace {

// n of "kept<n>" and "length<n>", 0 for other names.
size_t settled_by(const std::string& name) {
  for (const std::string prefix : {"kept", "length"}) {
    if (name.rfind(prefix, 0) != 0) continue;
    size_t number = 0;
    const char *begin = name.data() + prefix.size(), *end = name.data() + name.size();
    const auto [read, error] = std::from_chars(begin, end, number);
    if (error == std::errc() && read == end) return number;
  }
  return 0;
}

// The last decision that a step's input sizes depend on, 0 for none.
size_t settled_by(const PlanStep& step) {
  size_t last = 0;
  for (const TensorSpec& spec : step.inputs)
    for (const Dimension& dimension : spec.shape)
      if (const auto* name = std::get_if<std::string>(&dimension)) last = std::max(last, settled_by(*name));
  return last;
}

}  // namespace

Segments cut_segments(const std::vector<PlanStep>& steps, size_t decisions) {
  Segments segments;
  segments.after.resize(decisions + 1);
  size_t reached = 0;
  for (const PlanStep& step : steps) {
    const size_t number = settled_by(step);
    if (number > decisions) throw DovitError(text("step ", step.name, " follows no decision; build the plans again"));
    if (number < reached) {
      segments.decoder.push_back(&step);
    } else {
      reached = number;
      segments.after[number].push_back(&step);
    }
  }
  return segments;
}

}  // namespace dovit::runtime
