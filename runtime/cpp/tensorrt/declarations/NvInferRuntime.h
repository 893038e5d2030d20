// The part of the C++ interface of TensorRT-RTX (1.7 and newer) and TensorRT 11 that dovit calls, for builds that have
// no headers of theirs: no package has them, only NVIDIA's SDKs (TENSORRT_RTX_ROOT, TENSORRT_ROOT). Names, order and
// values are NVIDIA's, as TensorRT documents them; tests/cpp/test_tensorrt_bindings.py compares them with
// TensorRT-RTX's Python package, which was compiled with its headers.
//
// An object of TensorRT's (IRuntime, ICudaEngine, …) has a virtual destructor and a pointer to its implementation
// (apiv::VRuntime, apiv::VCudaEngine, …), whose functions are called in the order in which they stand here. Functions
// that dovit does not call hold their place without their parameters. Within a major version TensorRT only appends.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;
using cudaStream_t = CUstream_st*;

namespace nvinfer1 {

using AsciiChar = char;

class Dims64 {
 public:
  static constexpr int32_t MAX_DIMS = 8;
  int32_t nbDims;
  int64_t d[MAX_DIMS];
};
using Dims = Dims64;

enum class ExecutionContextAllocationStrategy : int32_t { kSTATIC = 0, kON_PROFILE_CHANGE = 1, kUSER_MANAGED = 2 };
enum class DynamicShapesKernelSpecializationStrategy : int32_t { kLAZY = 0, kEAGER = 1, kNONE = 2 };
enum class EngineValidity : int32_t { kVALID = 0, kSUBOPTIMAL = 1, kINVALID = 2 };
enum class EngineInvalidityDiagnostics : uint64_t {
  kVERSION_MISMATCH = 1,
  kUNSUPPORTED_CC = 2,
  kOLD_CUDA_DRIVER = 4,
  kOLD_CUDA_RUNTIME = 8,
  kINSUFFICIENT_GPU_MEMORY = 16,
  kMALFORMED_ENGINE = 32,
  kCUDA_ERROR = 64,
};

class ICudaEngine;
class IExecutionContext;
class IHostMemory;
class IRuntimeCache;
class IRuntimeConfig;

namespace apiv {

class VRoot {
 public:
  virtual ~VRoot() noexcept = default;
};

class VHostMemory : public VRoot {
 public:
  virtual void* data() const noexcept = 0;
  virtual std::size_t size() const noexcept = 0;
  virtual void type() = 0;
};

class VRuntime : public VRoot {
 public:
  virtual void getPImpl() = 0;
  virtual ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept = 0;
  virtual void setDLACore() = 0, getDLACore() = 0, getNbDLACores() = 0, setGpuAllocator() = 0, setErrorRecorder() = 0,
               getErrorRecorder() = 0, getLogger() = 0, setMaxThreads() = 0, getMaxThreads() = 0,
               setTemporaryDirectory() = 0, getTemporaryDirectory() = 0, setTempfileControlFlags() = 0,
               getTempfileControlFlags() = 0, getPluginRegistry() = 0, setPluginRegistryParent() = 0, loadRuntime() = 0,
               setEngineHostCodeAllowed() = 0, getEngineHostCodeAllowed() = 0, deserializeCudaEngineV2() = 0;
  // from here on TensorRT-RTX alone
  virtual int64_t getEngineHeaderSize() const noexcept = 0;
  virtual EngineValidity getEngineValidity(const void* blob, int64_t size, uint64_t* diagnostics) const noexcept = 0;
};

class VCudaEngine : public VRoot {
 public:
  virtual void getPImpl() = 0, getNbLayers() = 0, serialize() = 0;
  virtual IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept = 0;
  virtual void isRefittable() = 0, getName() = 0, getNbOptimizationProfiles() = 0, getEngineCapability() = 0,
               setErrorRecorder() = 0, getErrorRecorder() = 0, getTacticSources() = 0, getProfilingVerbosity() = 0,
               createEngineInspector() = 0, getTensorShape() = 0, getTensorDataType() = 0, getTensorLocation() = 0,
               isShapeInferenceIO() = 0, getTensorIOMode() = 0, getTensorBytesPerComponent() = 0,
               getTensorComponentsPerElement() = 0, getTensorFormat() = 0, getTensorFormatDesc() = 0,
               getTensorVectorizedDim() = 0, getProfileShape() = 0, getNbIOTensors() = 0, getIOTensorName() = 0,
               getHardwareCompatibilityLevel() = 0, getNbAuxStreams() = 0, getTensorBytesPerComponentV2() = 0,
               getTensorComponentsPerElementV2() = 0, getTensorFormatV2() = 0, getTensorFormatDescV2() = 0,
               getTensorVectorizedDimV2() = 0, createSerializationConfig() = 0, serializeWithConfig() = 0,
               createRefitter() = 0, getStreamableWeightsSize() = 0, isDebugTensor() = 0,
               setWeightStreamingBudgetV2() = 0, getWeightStreamingBudgetV2() = 0,
               getWeightStreamingAutomaticBudget() = 0, getWeightStreamingScratchMemorySize() = 0;
  virtual int64_t getDeviceMemorySizeV2() const noexcept = 0;
  virtual void getDeviceMemorySizeForProfileV2() = 0, getProfileTensorValuesV2() = 0;
  virtual IExecutionContext* createExecutionContextWithRuntimeConfig(IRuntimeConfig* config) noexcept = 0;
  virtual IRuntimeConfig* createRuntimeConfig() noexcept = 0;
};

class VExecutionContext : public VRoot {
 public:
  virtual void getPImpl() = 0, setDebugSync() = 0, getDebugSync() = 0, setProfiler() = 0, getProfiler() = 0,
               getEngine() = 0, setName() = 0, getName() = 0, setDeviceMemory() = 0, getOptimizationProfile() = 0,
               allInputDimensionsSpecified() = 0, setErrorRecorder() = 0, getErrorRecorder() = 0, executeV2() = 0;
  virtual bool setOptimizationProfileAsync(int32_t profile, cudaStream_t stream) noexcept = 0;
  virtual void setEnqueueEmitsProfile() = 0, getEnqueueEmitsProfile() = 0, reportToProfiler() = 0;
  virtual bool setInputShape(const char* name, const Dims& dims) noexcept = 0;
  virtual void getTensorShape() = 0, getTensorStrides() = 0;
  virtual bool setTensorAddress(const char* name, void* data) noexcept = 0;
  virtual void getTensorAddress() = 0, setInputTensorAddress() = 0, setOutputTensorAddress() = 0, inferShapes() = 0,
               setInputConsumedEvent() = 0, getInputConsumedEvent() = 0, getOutputTensorAddress() = 0,
               setOutputAllocator() = 0, getOutputAllocator() = 0, getMaxOutputSize() = 0,
               setTemporaryStorageAllocator() = 0, getTemporaryStorageAllocator() = 0;
  virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
  virtual void setPersistentCacheLimit() = 0, getPersistentCacheLimit() = 0, setNvtxVerbosity() = 0,
               getNvtxVerbosity() = 0, setAuxStreams() = 0, setDebugListener() = 0, getDebugListener() = 0,
               setTensorDebugState() = 0, getDebugState() = 0, setAllTensorsDebugState() = 0,
               updateDeviceMemorySizeForShapes() = 0;
  virtual void setDeviceMemoryV2(void* memory, int64_t size) noexcept = 0;
  virtual void getRuntimeConfig() = 0, setUnfusedTensorsDebugState() = 0, getUnfusedTensorsDebugState() = 0;
  // TensorRT-RTX alone
  virtual bool isStreamCapturable(cudaStream_t stream) const noexcept = 0;
};

// TensorRT-RTX alone, but for the allocation strategy
class VRuntimeConfig : public VRoot {
 public:
  virtual void getPImpl() = 0;
  virtual void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy strategy) noexcept = 0;
  virtual void getExecutionContextAllocationStrategy() = 0;
  virtual IRuntimeCache* createRuntimeCache() const noexcept = 0;
  virtual bool setRuntimeCache(const IRuntimeCache& cache) noexcept = 0;
  virtual void getRuntimeCache() = 0;
  virtual void setDynamicShapesKernelSpecializationStrategy(
      DynamicShapesKernelSpecializationStrategy strategy) noexcept = 0;
};

class VRuntimeCache : public VRoot {
 public:
  virtual IHostMemory* serialize() const noexcept = 0;
  virtual bool deserialize(const void* blob, std::size_t size) noexcept = 0;
};

}  // namespace apiv

// Base class of the objects that TensorRT returns.
template <class Implementation>
class Handle {
 public:
  virtual ~Handle() noexcept = default;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

 protected:
  Handle() = default;
  Implementation* mImpl{};
};

class IHostMemory : public Handle<apiv::VHostMemory> {
 public:
  void* data() const noexcept { return mImpl->data(); }
  std::size_t size() const noexcept { return mImpl->size(); }
};

class IRuntimeCache : public Handle<apiv::VRuntimeCache> {
 public:
  IHostMemory* serialize() const noexcept { return mImpl->serialize(); }
  bool deserialize(const void* blob, std::size_t size) noexcept { return mImpl->deserialize(blob, size); }
};

class IRuntimeConfig : public Handle<apiv::VRuntimeConfig> {
 public:
  void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy strategy) noexcept {
    mImpl->setExecutionContextAllocationStrategy(strategy);
  }
  IRuntimeCache* createRuntimeCache() const noexcept { return mImpl->createRuntimeCache(); }
  bool setRuntimeCache(const IRuntimeCache& cache) noexcept { return mImpl->setRuntimeCache(cache); }
  void setDynamicShapesKernelSpecializationStrategy(DynamicShapesKernelSpecializationStrategy strategy) noexcept {
    mImpl->setDynamicShapesKernelSpecializationStrategy(strategy);
  }
};

class IExecutionContext : public Handle<apiv::VExecutionContext> {
 public:
  bool setOptimizationProfileAsync(int32_t profile, cudaStream_t stream) noexcept {
    return mImpl->setOptimizationProfileAsync(profile, stream);
  }
  bool setInputShape(const char* name, const Dims& dims) noexcept { return mImpl->setInputShape(name, dims); }
  bool setTensorAddress(const char* name, void* data) noexcept { return mImpl->setTensorAddress(name, data); }
  bool enqueueV3(cudaStream_t stream) noexcept { return mImpl->enqueueV3(stream); }
  void setDeviceMemoryV2(void* memory, int64_t size) noexcept { mImpl->setDeviceMemoryV2(memory, size); }
  bool isStreamCapturable(cudaStream_t stream) const noexcept { return mImpl->isStreamCapturable(stream); }
};

class ICudaEngine : public Handle<apiv::VCudaEngine> {
 public:
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept {
    return mImpl->createExecutionContext(strategy);
  }
  IExecutionContext* createExecutionContext(IRuntimeConfig* config) noexcept {
    return mImpl->createExecutionContextWithRuntimeConfig(config);
  }
  IRuntimeConfig* createRuntimeConfig() noexcept { return mImpl->createRuntimeConfig(); }
  int64_t getDeviceMemorySizeV2() const noexcept { return mImpl->getDeviceMemorySizeV2(); }
};

class IRuntime : public Handle<apiv::VRuntime> {
 public:
  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept {
    return mImpl->deserializeCudaEngine(blob, size);
  }
  int64_t getEngineHeaderSize() const noexcept { return mImpl->getEngineHeaderSize(); }
  EngineValidity getEngineValidity(const void* blob, int64_t size, uint64_t* diagnostics) const noexcept {
    return mImpl->getEngineValidity(blob, size, diagnostics);
  }
};

enum class APILanguage : int32_t { kCPP = 0, kPYTHON = 1 };

class InterfaceInfo {
 public:
  const AsciiChar* kind;
  int32_t major, minor;
};

// What TensorRT calls is an interface with a version.
class ILogger {
 public:
  enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };

  virtual APILanguage getAPILanguage() const noexcept { return APILanguage::kCPP; }
  virtual InterfaceInfo getInterfaceInfo() const noexcept { return {"ILogger", 1, 0}; }
  virtual ~ILogger() = default;
  virtual void log(Severity severity, const AsciiChar* message) noexcept = 0;
};

}  // namespace nvinfer1
