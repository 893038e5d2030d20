#include "gpu/plans.h"

#include <algorithm>
#include <functional>

#include "errors.h"

namespace dovit::runtime {

namespace {

// The compute capabilities that TensorRT-RTX 1.7 runs on, those of its enum ComputeCapability. What later versions know
// they say themselves, when a plan is loaded.
constexpr const char* kRtxVersion = "1.7.";
const std::vector<std::string> kRtxCapabilities{"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"};

constexpr const char* kPortableFrom = "8.0";  // what a TensorRT-RTX plan without targets runs on: Ampere and newer

std::string command(const std::string& path, const std::string& flavour, const std::string& precision) {
  return text("dovit-export --engine ", path, " --backend ", flavour,
              precision.empty() ? "" : " --precision " + precision);
}

std::string rebuild(const PlanSet& plans, const std::string& path) {
  return "rebuild the plans: " + command(path, plans.flavour.value, plans.precision.value);
}

}  // namespace

const PlanSet& choose_plans(const Manifest& manifest, const std::string& path, const std::string& flavour,
                            const std::string& precision) {
  const PlanSet* chosen = nullptr;
  for (const PlanSet& plans : manifest.plans)
    if (plans.flavour == flavour.c_str() && (precision.empty() || plans.precision == precision.c_str()))
      chosen = &plans;
  if (!chosen) {
    const std::string there = joined(manifest.plans, std::mem_fn(&PlanSet::name));
    throw DovitError(text(path, ": no ", flavour, precision.empty() ? "" : " " + precision,
                          " plans in this bundle (there are: ", there.empty() ? "none" : there,
                          "); build them: ", command(path, flavour, precision)));
  }
  if (chosen->plugin_version)
    throw DovitError(text(path, ": the ", chosen->name(),
                          " plans have the token pass inside (--plugins), for programs that run them by themselves; "
                          "dovit's chain needs plans without: ",
                          command(path, flavour, "")));
  if (chosen->batch != 1)
    throw DovitError(text(path, ": the ", chosen->name(), " plans take ", chosen->batch,
                          " images at a time, and a session of libdovit_runtime one; ", rebuild(*chosen, path),
                          " --batch 1"));
  return *chosen;
}

void check_version(const PlanSet& plans, const std::string& path, const std::string& title,
                   const std::string& version) {
  if (version != plans.version)
    throw DovitError(text(path, ": the bundle's version says ", title, " ", plans.version, ", ", version,
                          " is installed; ", rebuild(plans, path)));
  if (plans.flavour == "tensorrt-rtx" && !plans.user_allocation)
    throw DovitError(
        text(path, ": the ", plans.name(),
             " plans were built without REQUIRE_USER_ALLOCATION, and cannot be captured into CUDA graphs; ",
             rebuild(plans, path)));
}

void check_device(const PlanSet& plans, const std::string& path, const Device& device) {
  const std::vector<std::string>& built_for = plans.compute_capabilities;
  const std::string capability = device.capability();
  if (plans.flavour == "tensorrt-rtx" && plans.version.rfind(kRtxVersion, 0) == 0 &&
      std::find(kRtxCapabilities.begin(), kRtxCapabilities.end(), capability) == kRtxCapabilities.end())
    throw DovitError(text(path, ": TensorRT-RTX ", plans.version, " runs on compute capability ",
                          joined(kRtxCapabilities), ", this GPU (", device.name, ") has ", capability,
                          ": use backend tensorrt, or onnxruntime on the CPU"));
  if (!built_for.empty() && std::find(built_for.begin(), built_for.end(), capability) == built_for.end())
    throw DovitError(text(path, ": the bundle's compute_capabilities say ", joined(built_for), ", this GPU (",
                          device.name, ") has ", capability, "; ", rebuild(plans, path)));
  if (built_for.empty() && device.capability_major < 8)
    throw DovitError(text(path, ": the bundle's compute_capabilities are left open, which means ", kPortableFrom,
                          " and newer, this GPU (", device.name, ") has ", capability, "; ", rebuild(plans, path),
                          " --compute-capability ", capability));
  if (plans.cuda && device.driver.version / 1000 < *plans.cuda)
    throw DovitError(text(path, ": the bundle's cuda says ", *plans.cuda, ", this machine's driver runs CUDA ",
                          cuda_version(device.driver.version), " at most: update the driver"));
}

}  // namespace dovit::runtime
