// A step's ONNX file under ONNX Runtime's CPU provider.
#pragma once

#include <filesystem>

#include "chain/engine.h"
#include "non_copyable.h"
#include "onnxruntime/library.h"

namespace dovit::runtime {

class OnnxRuntimeEngine : public Engine, NonCopyable {
 public:
  // `threads`: CPU threads that run the step, the caller's among them. Without `prepack` the weights are used as they
  // lie in the file, which is mapped: slower, but no copy of them.
  OnnxRuntimeEngine(std::shared_ptr<const OnnxRuntime> library, std::string name, const std::filesystem::path& model,
                    int threads, bool prepack);
  ~OnnxRuntimeEngine() override;

  void run(const Tensors& inputs, Tensors& outputs) const override;

 private:
  ort::Value* value_of(const Tensor& tensor) const;
  void take_over(ort::Value* value, Tensor& tensor) const;

  const std::shared_ptr<const OnnxRuntime> library_;
  const std::string name_;
  ort::Session* session_ = nullptr;
};

}  // namespace dovit::runtime
