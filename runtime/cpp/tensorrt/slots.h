// Where TensorRT's functions stand among the virtual functions of its classes.
//
// Its library exports C++ classes, no C functions, and this one is not compiled against either flavour: TensorRT and
// TensorRT-RTX have the same names for other layouts, and TensorRT-RTX's headers come with its SDK alone. Within a
// major version a layout only grows, for that is TensorRT's own promise of compatibility, so a number a function is
// enough. tests/cpp/tensorrt_slots.cpp asks TensorRT's headers for them, test_tensorrt_slots.py TensorRT-RTX's Python
// package, which was compiled against its own. Compilers for Linux agree on what a virtual call is (the Itanium C++
// ABI): an object begins with the address of its class's table.
#pragma once

#include <cstdint>

namespace dovit::runtime {

struct Slots {
  // of ILogger, which is ours: what TensorRT calls
  int log;
  // of IRuntime
  int deserialize_cuda_engine;
  // of ICudaEngine
  int create_execution_context, device_memory_size;
  int create_execution_context_with_config, create_runtime_config;  // TensorRT-RTX
  // of IRuntimeConfig, TensorRT-RTX
  int set_allocation_strategy, set_specialization_strategy;
  // of IExecutionContext
  int set_optimization_profile, set_input_shape, set_tensor_address, enqueue, set_device_memory;
};

constexpr Slots kTensorRt10{0, 3, 5, 52, -1, -1, -1, -1, 17, 21, 24, 37, 49};  // from 10.7
constexpr Slots kTensorRt11{4, 3, 5, 44, -1, -1, -1, -1, 16, 20, 23, 36, 48};
constexpr Slots kTensorRtRtx1{4, 3, 5, 44, 47, 48, 3, 8, 16, 20, 23, 36, 48};  // from 1.7

// Objects that TensorRT hands out: they have a virtual destructor, and all else is their implementation's.
struct Handed {
  void** table;
  void* implementation;
};
constexpr int kDelete = 1;  // the destructor that frees the memory too

// Calls a virtual function of an object.
template <class Result, class... Arguments>
Result call(void* object, int slot, Arguments... arguments) {
  using Function = Result (*)(void*, Arguments...);
  return reinterpret_cast<Function>((*static_cast<void***>(object))[slot])(object, arguments...);
}

// nvinfer1::Dims.
struct Dims {
  static constexpr int kMost = 8;
  int32_t count = 0;
  int64_t sizes[kMost]{};
};

}  // namespace dovit::runtime
