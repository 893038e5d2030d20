// The numbers of tensorrt/slots.h against TensorRT's own headers, whichever version they are.
#include <NvInferRuntime.h>

#include <cstring>

#include "expect.h"
#include "tensorrt/slots.h"

using namespace dovit::runtime;
using namespace nvinfer1;

namespace {

// A pointer to a virtual function is 1 + 8 times its number, by the ABI.
template <class Function>
int slot(Function function) {
  static_assert(sizeof function == 2 * sizeof(std::ptrdiff_t), "a pointer to a function of a class");
  std::ptrdiff_t words[2];
  std::memcpy(words, &function, sizeof words);
  EXPECT(words[0] % 8 == 1 && words[1] == 0);
  return static_cast<int>(words[0] / 8);
}

#if NV_TENSORRT_MAJOR >= 11
constexpr Slots kSlots = kTensorRt11;
#else
constexpr Slots kSlots = kTensorRt10;
#endif

void test_numbers() {
  using Deserialize = ICudaEngine* (apiv::VRuntime::*)(const void*, std::size_t) noexcept;
  EXPECT(slot(static_cast<Deserialize>(&apiv::VRuntime::deserializeCudaEngine)) == kSlots.deserialize_cuda_engine);
  EXPECT(slot(&apiv::VCudaEngine::createExecutionContext) == kSlots.create_execution_context);
  EXPECT(slot(&apiv::VCudaEngine::getDeviceMemorySizeV2) == kSlots.device_memory_size);
  using Context = apiv::VExecutionContext;
  EXPECT(slot(&Context::setOptimizationProfileAsync) == kSlots.set_optimization_profile);
  EXPECT(slot(&Context::setInputShape) == kSlots.set_input_shape);
  EXPECT(slot(&Context::setTensorAddress) == kSlots.set_tensor_address);
  EXPECT(slot(&Context::enqueueV3) == kSlots.enqueue);
  EXPECT(slot(&Context::setDeviceMemoryV2) == kSlots.set_device_memory);
  EXPECT(slot(&ILogger::log) == kSlots.log);
}

// What is handed out is a table and an implementation, and no more; sizes are as this library passes them.
void test_layout() {
  static_assert(sizeof(IRuntime) >= sizeof(Handed) && sizeof(ICudaEngine) == sizeof(Handed) &&
                    sizeof(IExecutionContext) == sizeof(Handed),
                "the implementation is the second word");
  static_assert(sizeof(nvinfer1::Dims) == sizeof(dovit::runtime::Dims) &&
                    offsetof(nvinfer1::Dims, d) == offsetof(dovit::runtime::Dims, sizes),
                "sizes of tensors");
  EXPECT(static_cast<int>(ExecutionContextAllocationStrategy::kUSER_MANAGED) == 2);
  EXPECT(static_cast<int>(ILogger::Severity::kERROR) == 1);
}

}  // namespace

int main() {
  test_numbers();
  test_layout();
}
