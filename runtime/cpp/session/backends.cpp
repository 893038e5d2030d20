#include "session/backends.h"

#include <sched.h>

#include <algorithm>
#include <functional>

#include "chain/chain.h"
#include "errors.h"
#include "onnxruntime/engine.h"
#ifdef DOVIT_GPU
#include "gpu/open.h"
#endif

namespace dovit::runtime {

namespace {

// CPUs that this process may run on.
int usable_cpus() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : std::max(1, CPU_COUNT(&set));
}

std::unique_ptr<Executor> onnxruntime_chain(const Bundle& bundle, const std::string& path, const LoadOptions& options) {
  for (const Step& step : bundle.manifest.steps) {
    if (step.onnx) continue;
    throw DovitError(text(path, ": holds plans only (", joined(bundle.manifest.plans, std::mem_fn(&PlanSet::name)),
                          "): choose their backend on a machine with a GPU, or add ONNX Runtime's files with "
                          "dovit-export --ckpt model.pth --out ",
                          path, " --backend onnxruntime"));
  }
  const auto library = std::make_shared<const OnnxRuntime>(options.onnxruntime);
  const int threads = options.threads ? options.threads : usable_cpus();
  std::vector<std::unique_ptr<Engine>> engines;
  for (const Step& step : bundle.manifest.steps)
    engines.push_back(std::make_unique<OnnxRuntimeEngine>(library, step.name, bundle.root / *step.onnx, threads,
                                                          !options.low_memory));
  return std::make_unique<Chain>(bundle.manifest, std::move(engines));
}

}  // namespace

std::unique_ptr<Executor> make_executor(const Bundle& bundle, const std::string& path, const LoadOptions& options) {
  const std::string &backend = options.backend, &device = options.device;
  if (backend == "tensorrt" || backend == "tensorrt-rtx") {
#ifdef DOVIT_GPU
    return open_on_gpu(bundle, path, options);
#else
    throw Unsupported(text(path, ": backend ", backend,
                           " is not in this build of libdovit_runtime, which found no CUDA headers: build it with the "
                           "CUDA toolkit installed; backend onnxruntime runs the bundle"));
#endif
  }
  if (backend != "auto" && backend != "onnxruntime")
    throw UsageError(text("unknown backend '", backend, "': choose one of auto, onnxruntime, tensorrt, tensorrt-rtx"));
  if (device.rfind("cuda", 0) == 0)
    throw Unsupported(text("device ", device, " needs the backend tensorrt or tensorrt-rtx; backend ", backend,
                           " runs on device cpu"));
  if (!device.empty() && device != "cpu") throw UsageError(text("unknown device '", device, "': choose cpu or cuda:N"));
  return onnxruntime_chain(bundle, path, options);
}

}  // namespace dovit::runtime
