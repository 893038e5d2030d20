#include "session/providers.h"

#include <sched.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "chain/chain.h"
#include "errors.h"
#include "onnxruntime/engine.h"
#include "openvino/accuracy.h"
#include "openvino/engine.h"
#include "openvino/speed.h"

namespace dovit::runtime {

namespace {

// CPUs that this process may run on.
int usable_cpus() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : std::max(1, CPU_COUNT(&set));
}

constexpr const char* kSaturates = "this CPU has no VNNI, and OpenVINO's sums of int8 products saturate there";

// Whether this is an x86 CPU without VNNI: libraries that multiply int8 there with AVX2 or AVX512 add products in 16
// bits.
bool int8_sums_saturate() {
#ifdef __x86_64__
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ecx & 1u << 11) return false;  // AVX512-VNNI
  return !(__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && eax & 1u << 4);           // AVX-VNNI
#else
  return false;
#endif
}

// OpenVINO's library where `options` mean it, or null, with the reason in `why_not`.
std::shared_ptr<const OpenVino> find_openvino(const Bundle& bundle, const std::string& path, const LoadOptions& options,
                                              const std::string& provider, std::string& why_not) {
  if (provider == "cpu") {
    why_not = options.provider == "cpu" ? "asked for" : "DOVIT_PROVIDER is set";
    return nullptr;
  }
  const bool wanted = provider == "openvino";
  const auto& steps = bundle.manifest.steps;
  if (std::any_of(steps.begin(), steps.end(), [](const Step& step) { return step.openvino.empty(); })) {
    why_not = path + " has no files for OpenVINO, as an older dovit made it: export it again";
  } else if (options.low_memory) {
    why_not = "low_memory is for ONNX Runtime: leave it out";
  } else {
    try {
      auto library = std::make_shared<const OpenVino>(options.openvino);
      if (bundle.manifest.precision.value != "int8" || !int8_sums_saturate()) return library;
      if (wanted && options.skip_accuracy_check) return library;
      if (wanted)
        throw UsageError(text("provider openvino: ", kSaturates,
                              ": take the provider cpu, whose sums are exact, or set skip_accuracy_check to have it "
                              "all the same"));
      why_not = kSaturates;
      return nullptr;
    } catch (const DovitError& error) {
      if (wanted || !options.openvino.empty()) throw;  // a library that the caller named is meant
      why_not = error.what();
    }
  }
  if (wanted) throw DovitError("provider openvino cannot be used: " + why_not);
  return nullptr;
}

// What `options` say, or for `auto` the variable DOVIT_PROVIDER, as in Python: for programs that cannot be changed.
std::string provider_of(const LoadOptions& options) {
  const char* told = std::getenv("DOVIT_PROVIDER");
  if (options.provider != "auto" || !told || !*told) return options.provider;
  const std::string named = told;
  if (named != "auto" && named != "cpu" && named != "openvino")
    throw UsageError(text("DOVIT_PROVIDER=", named, ": choose one of auto, cpu, openvino"));
  return named;
}

}  // namespace

Opened open_cpu_chain(const Bundle& bundle, const std::string& path, const LoadOptions& options) {
  const std::string provider = provider_of(options);
  const std::string precision = options.precision.empty() ? "fp32" : options.precision;
  if (precision == "fp16") throw UsageError("precision fp16 is for plans: on a CPU choose fp32 or bf16");
  if (precision != "fp32" && precision != "bf16")
    throw UsageError(text("unknown precision '", precision, "': choose fp32 or bf16"));
  for (const Step& step : bundle.manifest.steps) {
    if (step.onnx) continue;
    throw DovitError(text(path, ": holds plans only (", joined(bundle.manifest.plans, std::mem_fn(&PlanSet::name)),
                          "): choose their backend on a machine with a GPU, or add ONNX Runtime's files with "
                          "dovit-export --ckpt model.pth --out ",
                          path, " --backend onnxruntime"));
  }
  if (bundle.manifest.precision.value == "fp8")
    throw DovitError(text(path,
                          ": its products are fp8, which no CPU computes: choose the backend of its plans on a machine "
                          "with a GPU, or export it with --precision int8"));
  const int threads = options.threads ? options.threads : usable_cpus();
  std::vector<std::unique_ptr<Engine>> engines;
  std::string why_not;
  const std::shared_ptr<const OpenVino> openvino = find_openvino(bundle, path, options, provider, why_not);
  std::shared_ptr<const OnnxRuntime> library;
  if (openvino && provider == "auto" && precision == "fp32" && options.cache.empty())
    library = onnxruntime_if_faster(bundle, path, *openvino, options.onnxruntime, threads);
  if (openvino && !library) {
    if (precision == "bf16" && !openvino->computes_bf16())
      throw UsageError(
          "precision bf16: this CPU has no bf16 instructions (AVX512-BF16 or AMX): use fp32, which is what it computes "
          "in");
    if (precision == "bf16" && !options.skip_accuracy_check) check_bf16_accuracy(bundle, path, *openvino);
    for (const Step& step : bundle.manifest.steps)
      engines.push_back(std::make_unique<OpenVinoEngine>(openvino, step, bundle.root,
                                                         OpenVinoOptions{threads, precision == "bf16", options.cache}));
    // in bf16, which is OpenVINO's alone: it takes long over token counts that it has not seen
    const Schedule schedule = precision == "bf16" ? Schedule::kRounded : Schedule::kExact;
    return {std::make_unique<Chain>(bundle.manifest, std::move(engines), schedule), "openvino", precision};
  }
  if (precision != "fp32")
    throw UsageError(text("precision ", precision, " on a CPU needs the provider openvino, and cpu was chosen (",
                          why_not, "): use fp32, or change that"));
  if (!options.cache.empty())
    throw UsageError(
        text("cache is for the provider openvino, and cpu was chosen (", why_not, "): leave it out, or change that"));
  if (!library) library = std::make_shared<const OnnxRuntime>(options.onnxruntime);
  for (const Step& step : bundle.manifest.steps)
    engines.push_back(std::make_unique<OnnxRuntimeEngine>(library, step.name, bundle.root / *step.onnx, threads,
                                                          !options.low_memory));
  return {std::make_unique<Chain>(bundle.manifest, std::move(engines)), "cpu", precision};
}

}  // namespace dovit::runtime
