// The base class of the plugins, which implements IPluginV3 from a Signature. A plugin itself defines the sizes of its
// outputs and of its scratch memory, and launches its kernels.
#pragma once

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <string>
#include <vector>

#include "../kernels/dovit_kernels.h"
#include "signature.h"

namespace dovit {

constexpr const char* kNamespace = "dovit";
constexpr const char* kVersion = "1";

// Sizes and places of one call of a plugin.
struct Call {
  const nvinfer1::PluginTensorDesc *inputs, *outputs;
  void* workspace;
  cudaStream_t stream;
  const void* const* from;
  void* const* to;

  int size(int input, int dimension) const { return static_cast<int>(inputs[input].dims.d[dimension]); }
  template <class T>
  const T* in(int input) const {
    return static_cast<const T*>(from[input]);
  }
  template <class T>
  T* out(int output) const {
    return static_cast<T*>(to[output]);
  }
  int32_t type(int input) const;  // as dovit_kernels.h numbers them
};

class Plugin : public nvinfer1::IPluginV3,
               public nvinfer1::IPluginV3OneCore,
               public nvinfer1::IPluginV3OneBuild,
               public nvinfer1::IPluginV3OneRuntime {
 public:
  // `values` are the attributes' in the order of the signature, each within its bounds.
  Plugin(const Signature& signature, std::string layer, std::vector<int32_t> values);

  // --- defined by each plugin ---

  // Sizes of the outputs from those of the inputs.
  virtual void shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
                      nvinfer1::IExprBuilder& builder) const = 0;
  // Bytes of scratch memory for inputs up to these shapes.
  virtual size_t scratch_bytes(const nvinfer1::Dims* inputs) const = 0;
  // Checks of sizes beyond the signature: an error message, or an empty text.
  virtual std::string wrong_sizes(const nvinfer1::PluginTensorDesc* inputs) const = 0;
  virtual cudaError_t run(const Call& call) const = 0;

  // --- IPluginV3 ---

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  const char* getPluginName() const noexcept override { return signature_.name; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }

  int32_t getNbOutputs() const noexcept override { return signature_.output_count(); }
  int32_t getOutputDataTypes(nvinfer1::DataType* types, int32_t output_count, const nvinfer1::DataType* input_types,
                             int32_t input_count) const noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                 int32_t input_count, int32_t output_count) noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count, const nvinfer1::DimsExprs*, int32_t,
                          nvinfer1::DimsExprs* outputs, int32_t output_count,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc*, int32_t, const nvinfer1::DynamicPluginTensorDesc*,
                          int32_t) noexcept override {
    return 0;  // no state depends on the shapes that the builder tries
  }
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc*, int32_t) const noexcept override;
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                        const nvinfer1::PluginTensorDesc* outputs, int32_t output_count) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descs, const nvinfer1::PluginTensorDesc* output_descs,
                  const void* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override;

 protected:
  int32_t value(int attribute) const { return values_[attribute]; }
  const std::string& layer() const { return layer_; }
  const std::vector<int32_t>& values() const { return values_; }

 private:
  bool counts_fit(int input_count, int output_count) const;
  std::string with_name(const std::string& sentence) const;

  const Signature& signature_;
  std::string layer_;
  std::vector<int32_t> values_;
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection serialized_{};
};

}  // namespace dovit
