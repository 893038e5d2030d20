// The runtime, engines, runtime configurations and caches, and what the library exports.
#include <string>

#include "stand_in.h"
#include "tensorrt_objects.h"

namespace stand_in {

namespace {

using nvinfer1::apiv::VCudaEngine;
using nvinfer1::apiv::VRuntime;

#ifdef STAND_IN_RTX
constexpr int32_t kVersion[4] = {1, 7, 1, 116};
#elif defined(STAND_IN_TENSORRT11)
constexpr int32_t kVersion[4] = {11, 4, 0, 106};
#else
constexpr int32_t kVersion[4] = {10, 14, 1, 48};
#endif

// As in TensorRT's class, each call returns an object of its own.
template <class Class, class Impl>
Class* handed(Impl* impl) {
  return reinterpret_cast<Class*>(make_outer(impl));
}

nvinfer1::ICudaEngine* deserialize(Runtime* self, const void* bytes, size_t size) {
  if (stand_in_called("deserializeCudaEngine")) {
    self->error("the engine cannot be deserialized, as the test wants it");
    return nullptr;
  }
  try {
    return handed<nvinfer1::ICudaEngine>(new Engine(*self, bytes, size));
  } catch (const std::exception& error) {
    self->error(error.what());
    return nullptr;
  }
}

nvinfer1::IExecutionContext* make_context(Engine& engine, const Settings& settings) {
  const char* why = nullptr;
  if (stand_in_called("createExecutionContext")) why = "the context cannot be made, as the test wants it";
  if (!stand_in_has_context()) why = "a context cannot be made without a current CUDA context";
  if (!why) return handed<nvinfer1::IExecutionContext>(new Context(engine, settings));
  engine.runtime.error(why);
  return nullptr;
}

nvinfer1::IExecutionContext* create_context(Engine* self, ExecutionContextAllocationStrategy allocation) {
  return make_context(*self, {allocation});
}

int64_t scratch_bytes(Engine*) { return kScratchBytes; }

#ifdef STAND_IN_RTX

using nvinfer1::apiv::VRuntimeConfig;

// Objects that callers destroy.
template <class Impl, class Class>
Impl& implementation(const Class& object) {
  return *reinterpret_cast<const Outer<Impl>&>(object).impl;
}

nvinfer1::IExecutionContext* create_context_with(Engine* self, nvinfer1::IRuntimeConfig* config) {
  return make_context(*self, implementation<RuntimeConfig>(*config).settings);
}

nvinfer1::IRuntimeConfig* create_config(Engine*) { return handed<nvinfer1::IRuntimeConfig>(new RuntimeConfig); }

void set_allocation(RuntimeConfig* self, ExecutionContextAllocationStrategy strategy) {
  self->settings.allocation = strategy;
}
void set_specialization(RuntimeConfig* self, Specialization strategy) { self->settings.specialization = strategy; }

nvinfer1::IRuntimeCache* create_cache(RuntimeConfig*) { return handed<nvinfer1::IRuntimeCache>(new RuntimeCache); }

bool set_cache(RuntimeConfig* self, const nvinfer1::IRuntimeCache& cache) {
  if (stand_in_called("setRuntimeCache")) return false;
  self->settings.cache = &implementation<RuntimeCache>(cache);
  return true;
}

// A cache's bytes: a line that says of which version it is, and one for each shape.
const std::string kHead = "stand-in 1.7.1.116\n";

nvinfer1::IHostMemory* serialize(RuntimeCache* self) {
  const std::lock_guard<std::mutex> lock(self->mutex);
  std::string bytes = kHead;
  for (const std::string& one : self->compiled) bytes += one + "\n";
  return handed<nvinfer1::IHostMemory>(new HostMemory(bytes));
}

bool deserialize_cache(RuntimeCache* self, const void* bytes, size_t size) {
  const std::string content(static_cast<const char*>(bytes), size);
  if (content.rfind(kHead, 0) != 0) return false;
  const std::lock_guard<std::mutex> lock(self->mutex);
  for (size_t at = kHead.size(), end; at < size; at = end + 1) {
    end = std::min(content.find('\n', at), size);
    self->compiled.insert(content.substr(at, end - at));
  }
  return true;
}

void* memory_data(HostMemory* self) { return self->bytes.data(); }
size_t memory_size(HostMemory* self) { return self->bytes.size(); }
int32_t memory_type(HostMemory*) { return 5; }  // DataType::kUINT8, which Python asks for

constexpr int64_t kHeaderSize = 64;

int64_t header_size(Runtime*) { return kHeaderSize; }

nvinfer1::EngineValidity validity(Runtime*, const void*, int64_t size, uint64_t* diagnostics) {
  if (size < kHeaderSize) wrong_order("getEngineValidity wants a whole header");
  *diagnostics = 0;
  if (!stand_in_called("getEngineValidity")) return nvinfer1::EngineValidity::kVALID;
  using Why = nvinfer1::EngineInvalidityDiagnostics;
  *diagnostics = static_cast<uint64_t>(Why::kUNSUPPORTED_CC) | static_cast<uint64_t>(Why::kOLD_CUDA_DRIVER);
  return nvinfer1::EngineValidity::kINVALID;
}

#endif

const Slot* engine_slots() {
  static const auto table = [] {
    VTable<kEngineName> made;
    made.set(&VCudaEngine::createExecutionContext, &create_context)
        .set(&VCudaEngine::getDeviceMemorySizeV2, &scratch_bytes);
#ifdef STAND_IN_RTX
    made.set(&VCudaEngine::createExecutionContextWithRuntimeConfig, &create_context_with)
        .set(&VCudaEngine::createRuntimeConfig, &create_config);
#endif
    return made;
  }();
  return table.slots();
}

const Slot* runtime_slots() {
  static const auto table = [] {
    VTable<kRuntimeName> made;
    using Deserialize =
        nvinfer1::ICudaEngine* (VRuntime::*)(const void*, size_t) noexcept;  // one of two in TensorRT 10
    made.set(static_cast<Deserialize>(&VRuntime::deserializeCudaEngine), &deserialize);
#ifdef STAND_IN_RTX
    made.set(&VRuntime::getEngineHeaderSize, &header_size).set(&VRuntime::getEngineValidity, &validity);
#endif
    return made;
  }();
  return table.slots();
}

}  // namespace

void wrong_order(const char* what) {
  std::fprintf(stderr, "stand-in for TensorRT: %s\n", what);
  std::abort();
}

Runtime::Runtime(void* logger) : slots(runtime_slots()), logger(static_cast<nvinfer1::ILogger*>(logger)) {
  stand_in_count("runtime", 1);
}

Runtime::~Runtime() {
  if (engines) wrong_order("a runtime was destroyed before its engines");
  stand_in_count("runtime", -1);
}

void Runtime::error(const std::string& sentence) const {
  logger->log(nvinfer1::ILogger::Severity::kERROR, sentence.c_str());
}

Engine::Engine(Runtime& runtime, const void* bytes, size_t size)
    : slots(engine_slots()), runtime(runtime), plan(std::make_shared<const OnnxPlan>(bytes, size)) {
  ++runtime.engines;
  stand_in_count("engine", 1);
}

Engine::~Engine() {
  if (!stand_in_has_context()) wrong_order("an engine was destroyed without a current CUDA context");
  if (contexts) wrong_order("an engine was destroyed before its contexts");
  --runtime.engines;
  stand_in_count("engine", -1);
}

#ifdef STAND_IN_RTX

RuntimeConfig::RuntimeConfig() {
  static const auto table = VTable<kConfigName>()
                                .set(&VRuntimeConfig::setExecutionContextAllocationStrategy, &set_allocation)
                                .set(&VRuntimeConfig::setDynamicShapesKernelSpecializationStrategy, &set_specialization)
                                .set(&VRuntimeConfig::createRuntimeCache, &create_cache)
                                .set(&VRuntimeConfig::setRuntimeCache, &set_cache);
  slots = table.slots();
}

RuntimeCache::RuntimeCache() {
  using nvinfer1::apiv::VRuntimeCache;
  static const auto table = VTable<kCacheName>()
                                .set(&VRuntimeCache::serialize, &serialize)
                                .set(&VRuntimeCache::deserialize, &deserialize_cache);
  slots = table.slots();
  stand_in_count("cache", 1);
}

RuntimeCache::~RuntimeCache() {
  if (contexts) wrong_order("a runtime cache was destroyed before its contexts");
  stand_in_count("cache", -1);
}

HostMemory::HostMemory(std::string bytes) : bytes(std::move(bytes)) {
  using nvinfer1::apiv::VHostMemory;
  static const auto table = VTable<kMemoryName>()
                                .set(&VHostMemory::data, &memory_data)
                                .set(&VHostMemory::size, &memory_size)
                                .set(place_of(&VHostMemory::type), &memory_type);
  slots = table.slots();
}

#endif

}  // namespace stand_in

using namespace stand_in;

STAND_IN_API void* createInferRuntime_INTERNAL(void* logger, int32_t wanted) noexcept {
  auto runtime = std::make_unique<Runtime>(logger);
  if (wanted / 10000 == kVersion[0]) return make_outer(runtime.release());
  runtime->error("this library is of version " + std::to_string(kVersion[0]) + ", not " + std::to_string(wanted));
  return nullptr;
}

STAND_IN_API int32_t getInferLibMajorVersion() noexcept { return kVersion[0]; }
STAND_IN_API int32_t getInferLibMinorVersion() noexcept { return kVersion[1]; }
STAND_IN_API int32_t getInferLibPatchVersion() noexcept { return kVersion[2]; }
STAND_IN_API int32_t getInferLibBuildVersion() noexcept { return kVersion[3]; }
