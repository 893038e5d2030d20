#include "session/backends.h"

#include <cstdio>
#include <vector>

#include "errors.h"
#include "session/providers.h"
#ifdef DOVIT_GPU
#include "gpu/open.h"
#endif

namespace dovit::runtime {

bool has_plans(const std::string& backend) { return backend == "tensorrt" || backend == "tensorrt-rtx"; }

void check_backend(const LoadOptions& options) {
  const std::string& backend = options.backend;
  if (backend != "auto" && backend != "onnxruntime" && !has_plans(backend))
    throw UsageError(text("unknown backend '", backend, "': choose one of auto, onnxruntime, tensorrt, tensorrt-rtx"));
  const std::string& provider = options.provider;
  if (provider != "auto" && provider != "cpu" && provider != "openvino")
    throw UsageError(text("unknown provider '", provider, "': choose one of auto, cpu, openvino"));
  std::vector<const char*> others;  // in Python's order and, in the sentence, with its words
  const auto add = [&](const char* name, bool differs) {
    if (differs) others.push_back(name);
  };
  if (has_plans(backend)) {
    add("provider", provider != "auto");
    add("threads", options.threads != 0);
    add("low_memory", options.low_memory);
    add("skip_accuracy_check", options.skip_accuracy_check);
    add("cache", !options.cache.empty());
  } else {
    add("graph", options.graph.has_value());
  }
  if (!others.empty())
    std::fprintf(stderr, "dovit: no effect with backend %s: %s; leave that out, or give its backend\n", backend.c_str(),
                 joined(others).c_str());
}

Opened open_executor(const Bundle& bundle, const std::string& path, const LoadOptions& options) {
  const std::string &backend = options.backend, &device = options.device;
  if (has_plans(backend)) {
#ifdef DOVIT_GPU
    return {open_on_gpu(bundle, path, options), "", ""};
#else
    throw Unsupported(text(path, ": backend ", backend,
                           " is not in this build of libdovit_runtime, which found no CUDA headers: build it with the "
                           "CUDA toolkit installed; backend onnxruntime runs the bundle"));
#endif
  }
  if (device.rfind("cuda", 0) == 0)
    throw Unsupported(text("device ", device, " needs the backend tensorrt or tensorrt-rtx; backend ", backend,
                           " runs on device cpu"));
  if (!device.empty() && device != "cpu") throw UsageError(text("unknown device '", device, "': choose cpu or cuda:N"));
  return open_cpu_chain(bundle, path, options);
}

}  // namespace dovit::runtime
