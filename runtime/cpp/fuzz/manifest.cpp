// Any bytes as a manifest: it is read and checked, or refused with a sentence. What passes is planned as for a run, for
// that is where sizes that the check let through would tell.
#include "bundle/check.h"
#include "bundle/read.h"
#include "chain/buffers.h"
#include "errors.h"

using namespace dovit::runtime;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const Manifest manifest = parse_manifest({reinterpret_cast<const char*>(data), size}, "bundle.json");
    check_manifest(manifest, "bundle.json");
    for (const PlanSet& plans : manifest.plans) check_plans(manifest, plans, "bundle.json");
    plan_buffers(manifest);
  } catch (const DovitError& error) {
    if (std::string(error.what()).find('\n') != std::string::npos) __builtin_trap();  // one line
  }
  return 0;
}
