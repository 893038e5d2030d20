// From a bundle's plans to what runs them on a GPU.
#pragma once

#include "session/session.h"

namespace dovit::runtime {

// The plans of backend `options.backend` on `options.device`, warmed up and captured. `path`: the bundle as the caller
// named it. Throws DovitError, UsageError.
std::unique_ptr<Executor> open_on_gpu(const Bundle& bundle, const std::string& path, const LoadOptions& options);

}  // namespace dovit::runtime
