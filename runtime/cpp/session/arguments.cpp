#include "session/arguments.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "errors.h"
#include "session/backends.h"

namespace dovit::runtime {

std::string printed(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char digits[40];
  for (int precision = 1; precision <= 17; ++precision) {
    std::snprintf(digits, sizeof digits, "%.*g", precision, value);
    if (std::strtod(digits, nullptr) == value) break;
  }
  const std::string made = digits;
  return made.find_first_of(".e") == std::string::npos ? made + ".0" : made;
}

namespace {

void check_decides(const Manifest& manifest, const char* name) {
  if (manifest.decisions.empty())
    throw UsageError(text(name, ": the model has no decisions, so no token stops: leave ", name, " out"));
}

}  // namespace

std::vector<double> checked_thresholds(const Manifest& manifest, const std::vector<double>& given) {
  const size_t count = manifest.decisions.size();
  std::vector<double> thresholds = given;
  if (given.size() == 1) thresholds.assign(count, given[0]);
  if (thresholds.size() != count) {
    check_decides(manifest, "threshold");
    throw UsageError(text(given.size(), " thresholds for ", count, " decisions: give one for all, or one each"));
  }
  for (const double value : thresholds)
    if (!(value >= 0 && value <= 1))
      throw UsageError(text("threshold ", printed(value), " lies outside [0, 1]; 1 stops no token"));
  return thresholds;
}

std::vector<int64_t> checked_counts(const Manifest& manifest, const std::vector<int64_t>& given) {
  const size_t decisions = manifest.decisions.size();
  bool falling = given.size() == decisions;
  int64_t most = manifest.tokens();
  const int64_t least = manifest.least_kept();
  for (const int64_t count : given) {
    falling = falling && count >= least && count <= most;
    most = count;
  }
  if (!falling) {
    check_decides(manifest, "counts");
    throw UsageError(text("counts ", joined(given), ": give ", decisions, " falling numbers of tokens, from ",
                          manifest.tokens(), " to ", least));
  }
  return given;
}

Schedule checked_schedule(const std::string& backend, Schedule given) {
  if (given == Schedule::kRounded && has_plans(backend))
    throw UsageError("schedule rounded is for a CPU: choose exact or bucketed for plans");
  return given;
}

}  // namespace dovit::runtime
