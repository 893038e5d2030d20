// The runtime, engines and runtime configurations, and what the library exports.
#include <string>

#include "stand_in.h"
#include "tensorrt_objects.h"

namespace stand_in {

namespace {

struct Version {
  std::atomic<int32_t> major, minor, patch, build;
};

Version version{{kIsRtx ? 1 : 10}, {kIsRtx ? 7 : 14}, {1}, {kIsRtx ? 116 : 48}};

[[noreturn]] void wrong_order(const char* what) {
  std::fprintf(stderr, "stand-in for TensorRT: %s\n", what);
  std::abort();
}

Outer<Engine>* deserialize(Runtime* self, const void* bytes, size_t size) {
  if (stand_in_called("deserializeCudaEngine")) {
    self->error("the engine cannot be deserialized, as the test wants it");
    return nullptr;
  }
  try {
    return make_outer(new Engine(*self, bytes, size));
  } catch (const std::exception& error) {
    self->error(error.what());
    return nullptr;
  }
}

Outer<Context>* make_context(Engine& engine, int32_t allocation, int32_t specialisation) {
  const char* why = nullptr;
  if (stand_in_called("createExecutionContext")) why = "the context cannot be made, as the test wants it";
  if (!stand_in_has_context()) why = "a context cannot be made without a current CUDA context";
  if (!why) return make_outer(new Context(engine, allocation, specialisation));
  engine.runtime.error(why);
  return nullptr;
}

Outer<Context>* create_context(Engine* self, int32_t allocation) { return make_context(*self, allocation, 0); }

Outer<Context>* create_context_with(Engine* self, Outer<RuntimeConfig>* config) {
  return make_context(*self, config->impl->allocation, config->impl->specialisation);
}

Outer<RuntimeConfig>* create_config(Engine*) { return make_outer(new RuntimeConfig); }

int64_t scratch_bytes(Engine*) { return kScratchBytes; }

void set_allocation(RuntimeConfig* self, int32_t strategy) { self->allocation = strategy; }
void set_specialisation(RuntimeConfig* self, int32_t strategy) { self->specialisation = strategy; }

const Slot* engine_slots() {
  static const auto old_table = VTable<kEngineName>().set(5, &create_context).set(52, &scratch_bytes);
  static const auto new_table = VTable<kEngineName>()
                                    .set(5, &create_context)
                                    .set(44, &scratch_bytes)
                                    .set(47, &create_context_with)
                                    .set(48, &create_config);
  return (has_new_slots() ? new_table : old_table).slots();
}

}  // namespace

bool has_new_slots() { return kIsRtx || version.major >= 11; }

Runtime::Runtime(void* logger) : logger(logger) {
  static const auto table = VTable<kRuntimeName>().set(3, &deserialize);
  slots = table.slots();
  stand_in_count("runtime", 1);
}

Runtime::~Runtime() {
  if (engines) wrong_order("a runtime was destroyed before its engines");
  stand_in_count("runtime", -1);
}

void Runtime::error(const std::string& sentence) const {
  using Log = void (*)(void*, int32_t, const char*);
  constexpr int32_t kError = 1;
  const size_t slot = has_new_slots() ? 4 : 0;  // the new logger is an interface with a version
  reinterpret_cast<Log>((*static_cast<const Slot* const*>(logger))[slot])(logger, kError, sentence.c_str());
}

Engine::Engine(Runtime& runtime, const void* bytes, size_t size)
    : slots(engine_slots()), runtime(runtime), plan(std::make_shared<const OnnxPlan>(bytes, size)) {
  ++runtime.engines;
  stand_in_count("engine", 1);
}

Engine::~Engine() {
  if (contexts) wrong_order("an engine was destroyed before its contexts");
  --runtime.engines;
  stand_in_count("engine", -1);
}

RuntimeConfig::RuntimeConfig() {
  static const auto table = VTable<kConfigName>().set(3, &set_allocation).set(8, &set_specialisation);
  slots = table.slots();
}

}  // namespace stand_in

using namespace stand_in;

STAND_IN_API void* createInferRuntime_INTERNAL(void* logger, int32_t wanted) {
  auto runtime = std::make_unique<Runtime>(logger);
  if (wanted / 10000 == version.major) return make_outer(runtime.release());
  runtime->error("this library is of version " + std::to_string(version.major) + ", not " + std::to_string(wanted));
  return nullptr;
}

STAND_IN_API int32_t getInferLibMajorVersion() { return version.major; }
STAND_IN_API int32_t getInferLibMinorVersion() { return version.minor; }
STAND_IN_API int32_t getInferLibPatchVersion() { return version.patch; }
STAND_IN_API int32_t getInferLibBuildVersion() { return version.build; }

// What the library says that it is; from 11 on, TensorRT has the slots of TensorRT-RTX.
STAND_IN_API void stand_in_version(int32_t major, int32_t minor, int32_t patch, int32_t build) {
  version.major = major;
  version.minor = minor;
  version.patch = patch;
  version.build = build;
}
