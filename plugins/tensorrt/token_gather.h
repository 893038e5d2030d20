// TokenGather: kept tokens compacted, stopping ones written to the full sequence and merged into the class token
// (unless the attribute merge is 0) or into the merged tokens of their cells (with cell_side).
#pragma once

#include "plugin.h"

namespace dovit {

// Where the caller binds one buffer to `full` and `new_full`, or to `stopped_sum` and `new_sum`, nothing is copied.
class TokenGather : public Plugin {
 public:
  static const Signature& signature();
  TokenGather(std::string layer, std::vector<int32_t> values);

  void shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
              nvinfer1::IExprBuilder& builder) const override;
  size_t scratch_bytes(const nvinfer1::Dims* inputs) const override;
  std::string wrong_sizes(const nvinfer1::PluginTensorDesc* inputs) const override;
  cudaError_t run(const Call& call) const override;
  nvinfer1::IPluginV3* clone() noexcept override;
};

}  // namespace dovit
