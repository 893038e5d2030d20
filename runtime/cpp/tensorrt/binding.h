// TensorRT's interface as the rest of the runtime uses it, without TensorRT's headers.
//
// Those headers are inline functions over virtual ones, so that what is compiled with them links nothing, and the
// library is opened at run time (library.h). TensorRT 10, TensorRT 11 and TensorRT-RTX declare other classes under the
// same names: binding.cpp is compiled once for each of them, with a namespace `nvinfer1` of its own.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <memory>
#include <string>

#include "chain/dimensions.h"

namespace dovit::runtime::tensorrt {

// Receives TensorRT's errors, from any thread.
class ErrorLog {
 public:
  virtual ~ErrorLog() = default;
  virtual void error(const char* message) noexcept = 0;
};

// IExecutionContext, with the settings that it was made with. False from a function: TensorRT refused, and has logged
// the reason.
class Context {
 public:
  virtual ~Context() = default;
  virtual bool set_optimization_profile(int32_t number, CUstream stream) = 0;
  virtual bool set_input_shape(const char* name, const Shape& shape) = 0;
  virtual bool set_tensor_address(const char* name, CUdeviceptr address) = 0;
  virtual void set_device_memory(CUdeviceptr memory, int64_t bytes) = 0;
  virtual bool enqueue(CUstream stream) = 0;
  // What IExecutionContext::isStreamCapturable says; true where only TensorRT-RTX could be asked.
  virtual bool is_stream_capturable(CUstream stream) const = 0;
};

// IRuntimeCache: kernels that TensorRT-RTX has compiled. It has to outlive the contexts that it is given to.
class CompiledKernels {
 public:
  virtual ~CompiledKernels() = default;
  virtual bool deserialize(const std::string& bytes) = 0;  // false: of another version, GPU or driver, or damaged
  virtual std::string serialize() const = 0;               // empty: it cannot be serialized
};

// When TensorRT-RTX compiles kernels for a shape that it sees for the first time: at once, or never, in which case
// general ones run.
enum class Specialization { kEager, kNone };

// ICudaEngine. Null from a function: TensorRT refused, and has logged the reason. Not for two threads at a time.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual int64_t device_memory_bytes() const = 0;  // of a context, at the largest shapes of any profile
  // An empty cache of this engine's runtime; null also for full TensorRT, which compiles nothing at run time.
  virtual std::unique_ptr<CompiledKernels> create_cache() = 0;
  // A context whose device memory is the caller's to give. With a `cache` it takes compiled kernels from there and puts
  // them there; `*cache_taken` says whether it does.
  virtual std::unique_ptr<Context> create_context(Specialization specialization, const CompiledKernels* cache,
                                                  bool* cache_taken) = 0;
};

// IRuntime, with the logger.
class Runtime {
 public:
  virtual ~Runtime() = default;
  // What IRuntime::getEngineValidity finds wrong with a plan on this machine, as NVIDIA names it; empty: nothing, or it
  // cannot be asked.
  virtual std::string why_invalid(const std::string& plan) const = 0;
  virtual std::unique_ptr<Engine> deserialize(const std::string& plan) = 0;  // null: refused
};

// The library's createInferRuntime_INTERNAL, and the version that is passed to it: the library's own.
struct Factory {
  void* (*create_infer_runtime)(void* logger, int32_t version);
  int32_t version;
};

// One for each compilation of binding.cpp; null where the library refuses. The log has to outlive the runtime.
std::unique_ptr<Runtime> create_runtime_tensorrt10(const Factory& factory, ErrorLog& log);
std::unique_ptr<Runtime> create_runtime_tensorrt11(const Factory& factory, ErrorLog& log);
std::unique_ptr<Runtime> create_runtime_tensorrt_rtx(const Factory& factory, ErrorLog& log);

}  // namespace dovit::runtime::tensorrt
