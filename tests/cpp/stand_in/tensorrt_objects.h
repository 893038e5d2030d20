// TensorRT's objects: their fields and their virtual function tables. One source for TensorRT 10, TensorRT 11 and
// TensorRT-RTX, each compiled with the headers that dovit's binding is compiled with.
#pragma once

#include <NvInferRuntime.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "onnx_plan.h"
#include "vtable.h"

namespace stand_in {

using nvinfer1::ExecutionContextAllocationStrategy;

#ifdef STAND_IN_RTX
constexpr bool kIsRtx = true;
using Specialization = nvinfer1::DynamicShapesKernelSpecializationStrategy;
#else
constexpr bool kIsRtx = false;
enum class Specialization { kLAZY, kEAGER };
#endif

constexpr int64_t kScratchBytes = 4096;
constexpr uintptr_t kAlignment = 256;

inline constexpr char kRuntimeName[] = "IRuntime", kEngineName[] = "ICudaEngine", kConfigName[] = "IRuntimeConfig",
                      kContextName[] = "IExecutionContext", kCacheName[] = "IRuntimeCache",
                      kMemoryName[] = "IHostMemory";

// Ends the program: a rule of TensorRT's interface was broken.
[[noreturn]] void wrong_order(const char* what);

struct Runtime {
  static constexpr auto& kName = kRuntimeName;
  explicit Runtime(void* logger);
  ~Runtime();
  void error(const std::string& sentence) const;

  const Slot* slots;
  nvinfer1::ILogger* const logger;
  std::atomic<int> engines{0};
};

struct Engine {
  static constexpr auto& kName = kEngineName;
  Engine(Runtime& runtime, const void* bytes, size_t size);
  ~Engine();

  const Slot* slots;
  Runtime& runtime;
  const std::shared_ptr<const OnnxPlan> plan;
  std::atomic<int> contexts{0};
};

// Kernels that were compiled: an engine's name and a shape each.
struct RuntimeCache {
  static constexpr auto& kName = kCacheName;
  RuntimeCache();
  ~RuntimeCache();

  const Slot* slots;
  std::mutex mutex;
  std::set<std::string> compiled;
  std::atomic<int> contexts{0};
};

struct HostMemory {
  static constexpr auto& kName = kMemoryName;
  explicit HostMemory(std::string bytes);

  const Slot* slots;
  std::string bytes;
};

struct Settings {
  ExecutionContextAllocationStrategy allocation = ExecutionContextAllocationStrategy::kSTATIC;
  Specialization specialization = Specialization::kLAZY;
  RuntimeCache* cache = nullptr;
};

struct RuntimeConfig {
  static constexpr auto& kName = kConfigName;
  RuntimeConfig();

  const Slot* slots;
  Settings settings;
};

struct Context {
  static constexpr auto& kName = kContextName;
  Context(Engine& engine, const Settings& settings);
  ~Context();

  const Slot* slots;
  Engine& engine;
  const Settings settings;
  std::map<std::string, Place> places;
  std::map<std::string, bool> is_shaped;  // inputs of any size, once they have one
  int32_t profile = 0;                    // the first one by itself, -1 after a wrong number
  bool is_settled = false;                // it ran once with these shapes, and a capture may follow
  bool is_capturable = true;              // what it answers when asked
  void* scratch = nullptr;
  int64_t scratch_bytes = 0;
  const std::shared_ptr<int> alive = std::make_shared<int>();  // for what is queued
};

}  // namespace stand_in
