#include "gpu/open.h"

#include <charconv>

#include "errors.h"
#include "gpu/executor.h"
#include "gpu/plans.h"
#include "tensorrt/engine.h"

namespace dovit::runtime {

namespace {

// N of cuda:N; cuda alone is the first.
int device_number(const std::string& device, const std::string& backend) {
  if (device.empty() || device == "cuda") return 0;
  if (device == "cpu")
    throw UsageError(text("backend ", backend, " runs on a GPU, not on device cpu: choose cuda:N, or onnxruntime"));
  int number = -1;
  const std::string prefix = "cuda:";
  const char *begin = device.data() + prefix.size(), *end = device.data() + device.size();
  if (device.rfind(prefix, 0) == 0 && begin < end) {
    const auto [read, error] = std::from_chars(begin, end, number);
    if (error != std::errc() || read != end) number = -1;
  }
  if (number < 0) throw UsageError(text("unknown device '", device, "': choose cpu or cuda:N"));
  return number;
}

// Of a file that the bundle was checked to list.
const std::string& hash_of(const Manifest& manifest, const std::string& file) {
  for (const auto& [name, entry] : manifest.files)
    if (name == file) return entry.sha256;
  throw DovitError(text("the manifest does not list ", file, "; export the bundle again"));
}

}  // namespace

std::unique_ptr<Executor> open_on_gpu(const Bundle& bundle, const std::string& path, const LoadOptions& options) {
  const int number = device_number(options.device, options.backend);
  const PlanSet& set = choose_plans(bundle.manifest, path, options.backend, options.precision);
  Program program = read_program(bundle.root, bundle.manifest, set);
  const TensorRtLibrary library(options.backend, options.tensorrt, set.version);
  check_version(set, path, library.title(), library.version());
  DevicePtr device;
  try {
    device = Device::open(number);
  } catch (const DovitError& error) {
    throw DovitError(text(path, ": the ", set.name(), " plans need an NVIDIA GPU: ", error.what(),
                          "; backend onnxruntime runs on a CPU"));
  }
  check_device(set, path, *device);
  const ContextGuard guard(*device);
  const std::shared_ptr<TensorRt> tensorrt = TensorRt::share(library, *device);
  auto plans =
      std::make_unique<Plans>(Plans{bundle.manifest, set, std::move(program), {}, Kernels(options.plugins), device});
  for (const PlanStep& step : set.steps)
    if (step.plan)
      plans->engines[step.name] = std::make_unique<TensorRtEngine>(
          tensorrt,
          tensorrt->engine((bundle.root / step.plan->file).string(), hash_of(bundle.manifest, step.plan->file)), step);
  auto executor = std::make_unique<GpuExecutor>(std::move(plans), options.graph, options.workers);
  tensorrt->runtime_cache().save();
  return executor;
}

}  // namespace dovit::runtime
