// Compiled once for TensorRT 10, TensorRT 11 and TensorRT-RTX: with that flavour's headers, `nvinfer1` defined as a
// namespace of its own, without which the linker would merge inline functions and tables of virtual functions of
// different header sets, and DOVIT_CREATE_RUNTIME as the name of the function at the end.
#include "tensorrt/binding.h"

#include <NvInferRuntime.h>

#include <algorithm>
#include <vector>

#include "errors.h"

namespace dovit::runtime::tensorrt {

namespace {

using nvinfer1::ExecutionContextAllocationStrategy;

class Logger : public nvinfer1::ILogger {
 public:
  explicit Logger(ErrorLog& log) : log_(log) {}
  void log(Severity severity, const nvinfer1::AsciiChar* message) noexcept override {
    if (severity <= Severity::kERROR && message) log_.error(message);
  }

 private:
  ErrorLog& log_;
};

class BoundContext : public Context {
 public:
  BoundContext(std::shared_ptr<void> settings, nvinfer1::IExecutionContext* context)
      : settings_(std::move(settings)), context_(context) {}

  bool set_optimization_profile(int32_t number, CUstream stream) override {
    return context_->setOptimizationProfileAsync(number, stream);
  }
  bool set_input_shape(const char* name, const Shape& shape) override {
    nvinfer1::Dims dims{};
    if (shape.size() > static_cast<size_t>(nvinfer1::Dims::MAX_DIMS)) return false;
    dims.nbDims = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), dims.d);
    return context_->setInputShape(name, dims);
  }
  bool set_tensor_address(const char* name, CUdeviceptr address) override {
    return context_->setTensorAddress(name, reinterpret_cast<void*>(address));
  }
  void set_device_memory(CUdeviceptr memory, int64_t bytes) override {
    context_->setDeviceMemoryV2(reinterpret_cast<void*>(memory), bytes);
  }
  bool enqueue(CUstream stream) override { return context_->enqueueV3(stream); }
#ifdef DOVIT_TENSORRT_RTX
  bool is_stream_capturable(CUstream stream) const override { return context_->isStreamCapturable(stream); }
#else
  bool is_stream_capturable(CUstream) const override { return true; }
#endif

 private:
  const std::shared_ptr<void> settings_;  // before the context, which it has to outlive
  const std::unique_ptr<nvinfer1::IExecutionContext> context_;
};

#ifdef DOVIT_TENSORRT_RTX

class BoundCache : public CompiledKernels {
 public:
  explicit BoundCache(nvinfer1::IRuntimeCache* cache) : cache_(cache) {}

  bool deserialize(const std::string& bytes) override { return cache_->deserialize(bytes.data(), bytes.size()); }
  std::string serialize() const override {
    const std::unique_ptr<nvinfer1::IHostMemory> memory(cache_->serialize());
    return memory ? std::string(static_cast<const char*>(memory->data()), memory->size()) : std::string();
  }
  const nvinfer1::IRuntimeCache& get() const { return *cache_; }

 private:
  const std::unique_ptr<nvinfer1::IRuntimeCache> cache_;
};

#endif

class BoundEngine : public Engine {
 public:
  explicit BoundEngine(nvinfer1::ICudaEngine* engine) : engine_(engine) {}

  int64_t device_memory_bytes() const override { return engine_->getDeviceMemorySizeV2(); }

#ifdef DOVIT_TENSORRT_RTX
  std::unique_ptr<CompiledKernels> create_cache() override {
    const std::unique_ptr<nvinfer1::IRuntimeConfig> settings(engine_->createRuntimeConfig());
    nvinfer1::IRuntimeCache* const cache = settings ? settings->createRuntimeCache() : nullptr;
    return cache ? std::make_unique<BoundCache>(cache) : nullptr;
  }

  std::unique_ptr<Context> create_context(Specialization specialization, const CompiledKernels* cache,
                                          bool* cache_taken) override {
    using Strategy = nvinfer1::DynamicShapesKernelSpecializationStrategy;
    const std::shared_ptr<nvinfer1::IRuntimeConfig> settings(engine_->createRuntimeConfig());
    if (!settings) return nullptr;
    settings->setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy::kUSER_MANAGED);
    settings->setDynamicShapesKernelSpecializationStrategy(specialization == Specialization::kEager ? Strategy::kEAGER
                                                                                                    : Strategy::kNONE);
    *cache_taken = cache && settings->setRuntimeCache(static_cast<const BoundCache*>(cache)->get());
    return bound(settings, engine_->createExecutionContext(settings.get()));
  }
#else
  std::unique_ptr<CompiledKernels> create_cache() override { return nullptr; }

  std::unique_ptr<Context> create_context(Specialization, const CompiledKernels*, bool* cache_taken) override {
    *cache_taken = false;
    return bound(nullptr, engine_->createExecutionContext(ExecutionContextAllocationStrategy::kUSER_MANAGED));
  }
#endif

 private:
  static std::unique_ptr<Context> bound(std::shared_ptr<void> settings, nvinfer1::IExecutionContext* context) {
    return context ? std::make_unique<BoundContext>(std::move(settings), context) : nullptr;
  }

  const std::unique_ptr<nvinfer1::ICudaEngine> engine_;
};

class BoundRuntime : public Runtime {
 public:
  BoundRuntime(const Factory& factory, ErrorLog& log)
      : logger_(log),
        runtime_(static_cast<nvinfer1::IRuntime*>(factory.create_infer_runtime(&logger_, factory.version))) {}

  bool is_there() const { return runtime_ != nullptr; }

  // An engine that is invalid without a diagnostic is left to the deserialization, which says more.
#ifdef DOVIT_TENSORRT_RTX
  std::string why_invalid(const std::string& plan) const override {
    using Why = nvinfer1::EngineInvalidityDiagnostics;
    const auto size = static_cast<int64_t>(plan.size());
    uint64_t found = 0;
    if (size < runtime_->getEngineHeaderSize() ||
        runtime_->getEngineValidity(plan.data(), size, &found) != nvinfer1::EngineValidity::kINVALID)
      return "";
    std::vector<std::string> names;
    for (const auto& [bit, name] : {std::pair{Why::kVERSION_MISMATCH, "VERSION_MISMATCH"},
                                    {Why::kUNSUPPORTED_CC, "UNSUPPORTED_CC"},
                                    {Why::kOLD_CUDA_DRIVER, "OLD_CUDA_DRIVER"},
                                    {Why::kOLD_CUDA_RUNTIME, "OLD_CUDA_RUNTIME"},
                                    {Why::kINSUFFICIENT_GPU_MEMORY, "INSUFFICIENT_GPU_MEMORY"},
                                    {Why::kMALFORMED_ENGINE, "MALFORMED_ENGINE"},
                                    {Why::kCUDA_ERROR, "CUDA_ERROR"}})
      if (found & static_cast<uint64_t>(bit)) names.push_back(name);
    return joined(names);
  }
#else
  std::string why_invalid(const std::string&) const override { return ""; }
#endif

  std::unique_ptr<Engine> deserialize(const std::string& plan) override {
    nvinfer1::ICudaEngine* const engine = runtime_->deserializeCudaEngine(plan.data(), plan.size());
    return engine ? std::make_unique<BoundEngine>(engine) : nullptr;
  }

 private:
  Logger logger_;
  const std::unique_ptr<nvinfer1::IRuntime> runtime_;
};

}  // namespace

std::unique_ptr<Runtime> DOVIT_CREATE_RUNTIME(const Factory& factory, ErrorLog& log) {
  auto runtime = std::make_unique<BoundRuntime>(factory, log);
  return runtime->is_there() ? std::move(runtime) : nullptr;
}

}  // namespace dovit::runtime::tensorrt
