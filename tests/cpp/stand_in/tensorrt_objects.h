// TensorRT's objects: what they hold, and their tables. One source for TensorRT and TensorRT-RTX, whose slots differ.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "onnx_plan.h"
#include "vtable.h"

namespace stand_in {

#ifdef STAND_IN_RTX
constexpr bool kIsRtx = true;
#else
constexpr bool kIsRtx = false;
#endif

// Whether slots are TensorRT-RTX's, which are TensorRT 11's too.
bool has_new_slots();

constexpr int32_t kUserManaged = 2, kEager = 1;  // as TensorRT numbers them
constexpr int64_t kScratchBytes = 4096;
constexpr uintptr_t kAlignment = 256;

inline constexpr char kRuntimeName[] = "IRuntime", kEngineName[] = "ICudaEngine", kConfigName[] = "IRuntimeConfig",
                      kContextName[] = "IExecutionContext";

struct Runtime {
  static constexpr auto& kName = kRuntimeName;
  explicit Runtime(void* logger);
  ~Runtime();
  void error(const std::string& sentence) const;

  const Slot* slots;
  void* logger;
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

struct RuntimeConfig {
  static constexpr auto& kName = kConfigName;
  RuntimeConfig();

  const Slot* slots;
  int32_t allocation = 0, specialisation = 0;
};

struct Context {
  static constexpr auto& kName = kContextName;
  Context(Engine& engine, int32_t allocation, int32_t specialisation);
  ~Context();

  const Slot* slots;
  Engine& engine;
  const int32_t allocation, specialisation;
  std::map<std::string, Place> places;
  std::map<std::string, bool> is_shaped;  // inputs of any size, once they have one
  int32_t profile = 0;                    // the first one by itself, -1 after a wrong number
  bool is_settled = false;                // it ran once with these shapes, and a capture may follow
  void* scratch = nullptr;
  int64_t scratch_bytes = 0;
  const std::shared_ptr<int> alive = std::make_shared<int>();  // for what is queued
};

}  // namespace stand_in
