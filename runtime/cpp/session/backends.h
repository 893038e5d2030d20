// Which executor runs a bundle. A backend is one branch here and a folder of its own.
#pragma once

#include "session/session.h"

namespace dovit::runtime {

// Whether the backend runs plans on a GPU.
bool has_plans(const std::string& backend);

// Throws UsageError for a backend that there is not. Prints which of the options are for another one.
void check_backend(const LoadOptions& options);

// `path`: the bundle as the caller named it, for sentences. Throws DovitError, UsageError or Unsupported.
Opened open_executor(const Bundle& bundle, const std::string& path, const LoadOptions& options);

}  // namespace dovit::runtime
