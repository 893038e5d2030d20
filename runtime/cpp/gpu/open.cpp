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

}  // namespace

std::unique_ptr<Executor> open_on_gpu(const Bundle& bundle, const std::string& path, const LoadOptions& options) {
  const int number = device_number(options.device, options.backend);
  const PlanSet& set = choose_plans(bundle.manifest, path, options.backend, options.precision);
  Program program = read_program(bundle.root, bundle.manifest, set);
  const auto library = std::make_shared<TensorRt>(options.backend, options.tensorrt, set.version);
  check_version(set, path, library->title(), library->version());
  DevicePtr device;
  try {
    device = Device::open(number);
  } catch (const DovitError& error) {
    throw DovitError(text(path, ": the ", set.name(), " plans need an NVIDIA GPU: ", error.what(),
                          "; backend onnxruntime runs on a CPU"));
  }
  check_device(set, path, *device);
  const Current current(*device);
  library->start();
  auto plans =
      std::make_unique<Plans>(Plans{bundle.manifest, set, std::move(program), {}, Kernels(options.plugins), device});
  for (const PlanStep& step : set.steps)
    if (step.plan)
      plans->engines[step.name] =
          std::make_unique<TensorRtEngine>(library, step, (bundle.root / step.plan->file).string());
  return std::make_unique<GpuExecutor>(std::move(plans), options.graph, options.workers);
}

}  // namespace dovit::runtime
