// What runs a bundle's steps on a CPU: ONNX Runtime's own provider (cpu), or OpenVINO.
#pragma once

#include "session/backends.h"

namespace dovit::runtime {

// The chain of the provider and in the precision that `options` name. `path`: the bundle as the caller named it, for
// sentences. Throws DovitError, UsageError or Unsupported.
Opened open_cpu_chain(const Bundle& bundle, const std::string& path, const LoadOptions& options);

}  // namespace dovit::runtime
