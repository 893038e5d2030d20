#include "signature.h"

#include <map>

namespace dovit {
namespace {

using nvinfer1::DataType;

template <class Items>
std::string joined(const Items& items) {
  std::string text;
  for (const auto& item : items) text += (text.empty() ? "" : ", ") + std::string(item.name);
  return text;
}

const char* title(Element element) {
  switch (element) {
    case Element::kTokens:
      return "float32, float16 or bfloat16, the same for all tokens";
    case Element::kFloat:
      return "float32";
    case Element::kInt32:
      return "int32";
    case Element::kInt64:
      return "int64";
  }
  return "";
}

using Sizes = std::map<std::string, int64_t>;

std::string shape_of(const nvinfer1::Dims& dims) {
  std::string text;
  for (int k = 0; k < dims.nbDims; ++k) text += (k ? ", " : "") + std::to_string(dims.d[k]);
  return "[" + text + "]";
}

// Numbers where the tensors before it have settled them, names elsewhere.
std::string expected(const Tensor& tensor, const Sizes& sizes) {
  std::string text;
  for (const char* size : tensor.sizes) {
    const auto known = sizes.find(size);
    text += (text.empty() ? "" : ", ") + (known == sizes.end() ? std::string(size) : std::to_string(known->second));
  }
  return "[" + text + "]";
}

}  // namespace

std::string Signature::text() const {
  const std::string given = attributes.empty() ? "" : "<" + joined(attributes) + "> ";
  return std::string(name) + " " + given + "(" + joined(inputs) + ") => (" + joined(outputs) + ")";
}

bool holds(Element element, DataType type) {
  switch (element) {
    case Element::kTokens:
      return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
    case Element::kFloat:
      return type == DataType::kFLOAT;
    case Element::kInt32:
      return type == DataType::kINT32;
    case Element::kInt64:
      return type == DataType::kINT64;
  }
  return false;
}

std::string misfit(const Signature& signature, const nvinfer1::PluginTensorDesc* inputs, int input_count,
                   const nvinfer1::PluginTensorDesc* outputs, int output_count) {
  if (input_count != signature.input_count() || output_count != signature.output_count()) {
    return "it has " + std::to_string(input_count) + " inputs and " + std::to_string(output_count) +
           " outputs, but the plugin is " + signature.text();
  }
  Sizes sizes{{"1", 1}};
  const DataType* tokens = nullptr;
  for (int position = 0; position < input_count + output_count; ++position) {
    const Tensor& tensor = signature.at(position);
    const auto& desc = position < input_count ? inputs[position] : outputs[position - input_count];
    const bool same = tensor.element != Element::kTokens || !tokens || *tokens == desc.type;
    if (!holds(tensor.element, desc.type) || !same)
      return tensor.name + std::string(" must be ") + title(tensor.element);
    if (tensor.element == Element::kTokens) tokens = &desc.type;
    if (desc.format != nvinfer1::TensorFormat::kLINEAR) return tensor.name + std::string(" must be in linear layout");
    const std::string wanted = expected(tensor, sizes);
    bool fits = desc.dims.nbDims == static_cast<int>(tensor.sizes.size());
    for (int k = 0; fits && k < desc.dims.nbDims; ++k)
      fits = sizes.try_emplace(tensor.sizes[k], desc.dims.d[k]).first->second == desc.dims.d[k];
    if (!fits) return tensor.name + std::string(" has shape ") + shape_of(desc.dims) + " instead of " + wanted;
  }
  return "";
}

}  // namespace dovit
