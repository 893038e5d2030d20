// A plugin's attributes, inputs and outputs, declared once: the names are those of the ONNX function of the same name,
// in its order.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>
#include <vector>

namespace dovit {

// What a tensor is made of. All tensors of kTokens of one node have the same type: float32, float16 or bfloat16.
enum class Element { kTokens, kFloat, kInt32, kInt64 };

struct Tensor {
  const char* name;
  Element element;
  std::vector<const char*> sizes;  // names of its dimensions; the same name is the same size in all tensors
};

// An attribute of the node, a field of the plugin. `fallback` < 0: there is none, the attribute has to be given.
struct Attribute {
  const char* name;
  int32_t fallback, largest;  // 0 is always the smallest
  const char* meaning;        // for the error about a missing or invalid value
};

struct Signature {
  const char* name;
  std::vector<Attribute> attributes;
  std::vector<Tensor> inputs, outputs;

  int input_count() const { return static_cast<int>(inputs.size()); }
  int output_count() const { return static_cast<int>(outputs.size()); }
  // The tensor at a position of TensorRT's combined lists, inputs first.
  const Tensor& at(int position) const {
    return position < input_count() ? inputs[position] : outputs[position - input_count()];
  }
  // As ONNX writes a function's head: Name <attribute> (input, …) => (output, …).
  std::string text() const;
};

// Whether `type` is what `element` may be made of.
bool holds(Element element, nvinfer1::DataType type);

// Empty, or what does not fit in one sentence: number, type, layout and sizes of a node's tensors at run time.
std::string misfit(const Signature& signature, const nvinfer1::PluginTensorDesc* inputs, int input_count,
                   const nvinfer1::PluginTensorDesc* outputs, int output_count);

}  // namespace dovit
