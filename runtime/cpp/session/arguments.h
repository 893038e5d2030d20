// Checks of a caller's arguments, with the messages of runtime/arguments.py and runtime/session.py.
#pragma once

#include "chain/executor.h"

namespace dovit::runtime {

// A number as Python prints it.
std::string printed(double value);

// One ξ a decision from one for all, or one each. Throws UsageError.
std::vector<double> checked_thresholds(const Manifest& manifest, const std::vector<double>& given);

// Tokens to keep after each decision. Throws UsageError.
std::vector<int64_t> checked_counts(const Manifest& manifest, const std::vector<int64_t>& given);

// The schedule of a pass by `backend`. Throws UsageError where the backend has no such schedule.
Schedule checked_schedule(const std::string& backend, Schedule given);

}  // namespace dovit::runtime
