#include "plugin.h"

#include <utility>

#include "report.h"

namespace dovit {

using nvinfer1::DataType;

int32_t Call::type(int input) const {
  switch (inputs[input].type) {
    case DataType::kHALF:
      return DOVIT_FLOAT16;
    case DataType::kBF16:
      return DOVIT_BFLOAT16;
    default:  // a signature lets no other type through
      return DOVIT_FLOAT32;
  }
}

Plugin::Plugin(const Signature& signature, std::string layer, std::vector<int32_t> values)
    : signature_(signature), layer_(std::move(layer)), values_(std::move(values)) {
  for (size_t k = 0; k < values_.size(); ++k)
    fields_.emplace_back(signature_.attributes[k].name, &values_[k], nvinfer1::PluginFieldType::kINT32, 1);
}

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

const nvinfer1::PluginFieldCollection* Plugin::getFieldsToSerialize() noexcept {
  serialized_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
  return &serialized_;
}

int32_t Plugin::getOutputDataTypes(DataType* types, int32_t output_count, const DataType* input_types,
                                   int32_t input_count) const noexcept {
  if (!counts_fit(input_count, output_count)) return 1;
  DataType tokens = DataType::kFLOAT;
  for (int k = input_count - 1; k >= 0; --k)
    if (signature_.inputs[k].element == Element::kTokens) tokens = input_types[k];
  for (int k = 0; k < output_count; ++k) {
    const Element element = signature_.outputs[k].element;
    types[k] = element == Element::kTokens  ? tokens
               : element == Element::kFloat ? DataType::kFLOAT
               : element == Element::kInt32 ? DataType::kINT32
                                            : DataType::kINT64;
  }
  return 0;
}

bool Plugin::supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                       int32_t input_count, int32_t output_count) noexcept {
  if (!counts_fit(input_count, output_count)) return false;
  const Tensor& tensor = signature_.at(position);
  const auto& desc = tensors[position].desc;
  if (desc.format != nvinfer1::TensorFormat::kLINEAR || !holds(tensor.element, desc.type)) return false;
  for (int k = 0; k < position && tensor.element == Element::kTokens; ++k)
    if (signature_.at(k).element == Element::kTokens && tensors[k].desc.type != desc.type) return false;
  return true;
}

int32_t Plugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count, const nvinfer1::DimsExprs*,
                                int32_t, nvinfer1::DimsExprs* outputs, int32_t output_count,
                                nvinfer1::IExprBuilder& builder) noexcept {
  if (!counts_fit(input_count, output_count)) return 1;
  for (int k = 0; k < input_count; ++k) {
    const Tensor& tensor = signature_.inputs[k];
    if (inputs[k].nbDims != static_cast<int>(tensor.sizes.size())) {
      report(with_name(tensor.name + std::string(" has ") + std::to_string(inputs[k].nbDims) +
                       " dimensions, but needs " + std::to_string(tensor.sizes.size())));
      return 1;
    }
  }
  for (int k = 0; k < output_count; ++k) outputs[k].nbDims = static_cast<int>(signature_.outputs[k].sizes.size());
  shapes(inputs, outputs, builder);
  return 0;
}

size_t Plugin::getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                                const nvinfer1::DynamicPluginTensorDesc*, int32_t) const noexcept {
  std::vector<nvinfer1::Dims> largest;
  for (int k = 0; k < input_count; ++k) largest.push_back(inputs[k].max);
  return scratch_bytes(largest.data());
}

int32_t Plugin::onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                              const nvinfer1::PluginTensorDesc* outputs, int32_t output_count) noexcept {
  std::string wrong = misfit(signature_, inputs, input_count, outputs, output_count);
  if (wrong.empty()) wrong = wrong_sizes(inputs);
  if (wrong.empty()) return 0;
  report(with_name(wrong));
  return 1;
}

int32_t Plugin::enqueue(const nvinfer1::PluginTensorDesc* input_descs, const nvinfer1::PluginTensorDesc* output_descs,
                        const void* const* inputs, void* const* outputs, void* workspace,
                        cudaStream_t stream) noexcept {
  const cudaError_t status = run({input_descs, output_descs, workspace, stream, inputs, outputs});
  if (status == cudaSuccess) return 0;
  report(with_name(std::string("its kernels could not be launched: ") + cudaGetErrorString(status)));
  return 1;
}

bool Plugin::counts_fit(int input_count, int output_count) const {
  if (input_count == signature_.input_count() && output_count == signature_.output_count()) return true;
  report(with_name(misfit(signature_, nullptr, input_count, nullptr, output_count)));
  return false;
}

std::string Plugin::with_name(const std::string& sentence) const {
  return std::string(signature_.name) + " " + layer_ + ": " + sentence;
}

}  // namespace dovit
