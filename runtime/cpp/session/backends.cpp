#include "session/backends.h"

#include "chain/chain.h"
#include "errors.h"
#include "onnxruntime/engine.h"

namespace dovit::runtime {

namespace {

std::unique_ptr<Executor> onnxruntime_chain(const Bundle& bundle, const std::string& path, const LoadOptions& options) {
  for (const Step& step : bundle.manifest.steps) {
    if (step.onnx) continue;
    std::string there;
    for (const PlanSet& plans : bundle.manifest.plans) there += (there.empty() ? "" : ", ") + plans.name();
    throw DovitError(text(path, ": holds plans only (", there,
                          "), which this build of libdovit_runtime cannot run: add ONNX Runtime's files with "
                          "dovit-export --ckpt model.pth --out ",
                          path, " --backend onnxruntime"));
  }
  const auto library = std::make_shared<const OnnxRuntime>(options.onnxruntime, options.threads);
  std::vector<std::unique_ptr<Engine>> engines;
  for (const Step& step : bundle.manifest.steps)
    engines.push_back(
        std::make_unique<OnnxRuntimeEngine>(library, step.name, bundle.root / *step.onnx, !options.low_memory));
  return std::make_unique<Chain>(bundle.manifest, std::move(engines));
}

}  // namespace

std::unique_ptr<Executor> make_executor(const Bundle& bundle, const std::string& path, const LoadOptions& options) {
  if (options.backend == "tensorrt" || options.backend == "tensorrt-rtx")
    throw Unsupported(text(path, ": backend ", options.backend,
                           " is not in this build of libdovit_runtime; backend onnxruntime runs the bundle"));
  if (options.backend != "auto" && options.backend != "onnxruntime")
    throw UsageError(
        text("unknown backend '", options.backend, "': choose one of auto, onnxruntime, tensorrt, tensorrt-rtx"));
  if (options.device.rfind("cuda", 0) == 0)
    throw Unsupported(text("device ", options.device,
                           " needs the backend tensorrt or tensorrt-rtx, which is not in this build of "
                           "libdovit_runtime; device cpu runs the bundle"));
  if (options.device != "cpu") throw UsageError(text("unknown device '", options.device, "': choose cpu or cuda:N"));
  return onnxruntime_chain(bundle, path, options);
}

}  // namespace dovit::runtime
