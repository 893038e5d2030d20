// What runs one step on the host, such as its ONNX file under ONNX Runtime. On a GPU it is a PlanEngine.
#pragma once

#include <map>
#include <string>

#include "chain/tensor.h"

namespace dovit::runtime {

using Tensors = std::map<std::string, Tensor>;

class Engine {
 public:
  virtual ~Engine() = default;

  // Reads `inputs`, writes into `outputs`; an output without data gets memory of its own, and its shape. Calls from
  // several threads at a time are allowed. Throws DovitError.
  virtual void run(const Tensors& inputs, Tensors& outputs) const = 0;
};

}  // namespace dovit::runtime
