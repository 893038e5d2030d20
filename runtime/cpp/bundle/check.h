// Checks of a manifest, after which a pass cannot access memory out of bounds: see runtime/bundle/check.py.
#pragma once

#include "bundle/manifest.h"

namespace dovit::runtime {

// Throws DovitError where sizes are impossible, or a step reads what no step before it makes.
void check_manifest(const Manifest& manifest, const std::string& file);

}  // namespace dovit::runtime
