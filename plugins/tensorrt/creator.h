// Makes plugins of one kind from named fields: an ONNX node's attributes, or what a plan has stored.
#pragma once

#include <NvInferRuntime.h>

#include <new>
#include <optional>
#include <string>
#include <vector>

#include "plugin.h"
#include "report.h"

namespace dovit {

// The values of `signature`'s attributes in their order, or none where a field is missing, foreign, of another type or
// out of bounds; the reason is reported.
std::optional<std::vector<int32_t>> read_fields(const Signature& signature, const std::string& layer,
                                                const nvinfer1::PluginFieldCollection* fields);

template <class P>
class Creator : public nvinfer1::IPluginCreatorV3One {
 public:
  Creator() {
    for (const Attribute& attribute : P::signature().attributes)
      names_.emplace_back(attribute.name, nullptr, nvinfer1::PluginFieldType::kINT32, 1);
    fields_ = {static_cast<int32_t>(names_.size()), names_.data()};
  }

  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    const std::string layer = name ? name : "";
    auto values = read_fields(P::signature(), layer, fields);
    return values ? new (std::nothrow) P(layer, *values) : nullptr;
  }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &fields_; }
  const char* getPluginName() const noexcept override { return P::signature().name; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  std::vector<nvinfer1::PluginField> names_;
  nvinfer1::PluginFieldCollection fields_{};
};

}  // namespace dovit
