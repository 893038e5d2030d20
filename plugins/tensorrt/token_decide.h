// TokenDecide: which tokens stay.
#pragma once

#include "plugin.h"

namespace dovit {

// keep [batch, kept] of confidence [batch, tokens]; the capacity that was chosen lies in the last output.
// Without `fixed_capacity`, `kept` is that number, which TensorRT learns when the kernels have run: for engines of the
// whole model. With it, keep has room for all tokens and its first batch·capacity values are the list: all shapes are
// known beforehand, so the engine can be captured in a CUDA graph.
class TokenDecide : public Plugin {
 public:
  static const Signature& signature();
  TokenDecide(std::string layer, std::vector<int32_t> values);

  void shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
              nvinfer1::IExprBuilder& builder) const override;
  size_t scratch_bytes(const nvinfer1::Dims* inputs) const override;
  std::string wrong_sizes(const nvinfer1::PluginTensorDesc* inputs) const override;
  cudaError_t run(const Call& call) const override;
  nvinfer1::IPluginV3* clone() noexcept override;
};

}  // namespace dovit
