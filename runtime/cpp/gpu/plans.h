// Which of a bundle's plan sets can run here, and why the others cannot: see runtime/plans.py.
#pragma once

#include <optional>
#include <string>

#include "bundle/open.h"
#include "gpu/device.h"

namespace dovit::runtime {

// The bundle's plan set of `flavour`, in `precision` where given, else the one built last. `path`: the bundle as the
// caller named it. Throws DovitError.
const PlanSet& choose_plans(const Manifest& manifest, const std::string& path, const std::string& flavour,
                            const std::string& precision);

// Throws DovitError where `plans` need another version of TensorRT than `version` ...
void check_version(const PlanSet& plans, const std::string& path, const std::string& title, const std::string& version);

// ... or another GPU or driver.
void check_device(const PlanSet& plans, const std::string& path, const Device& device);

}  // namespace dovit::runtime
