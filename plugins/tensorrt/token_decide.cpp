#include "token_decide.h"

#include <new>

#include "sequence.h"

namespace dovit {
namespace {

enum Input { kConfidence, kThreshold, kCapacities };
enum Output { kKeep, kCapacity };

}  // namespace

const Signature& TokenDecide::signature() {
  static const Signature signature{
      "TokenDecide",
      {{"fixed_capacity", 0, 1, "1 gives keep the size of all tokens, 0 that of the kept ones"}},
      {{"confidence", Element::kFloat, {"batch", "tokens"}},
       {"threshold", Element::kFloat, {}},
       {"capacities", Element::kInt64, {"capacities"}}},
      {{"keep", Element::kInt32, {"batch", "kept"}}, {"capacity", Element::kInt32, {}}},
  };
  return signature;
}

TokenDecide::TokenDecide(std::string layer, std::vector<int32_t> values)
    : Plugin(signature(), std::move(layer), std::move(values)) {}

void TokenDecide::shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
                         nvinfer1::IExprBuilder& builder) const {
  const auto& tokens = *inputs[kConfidence].d[1];
  outputs[kKeep].d[0] = inputs[kConfidence].d[0];
  if (value(0)) {
    outputs[kKeep].d[1] = &tokens;
  } else {  // tuned for half of them, as the paper's models keep
    const auto& half = *builder.operation(nvinfer1::DimensionOperation::kCEIL_DIV, tokens, *builder.constant(2));
    outputs[kKeep].d[1] = builder.declareSizeTensor(kCapacity, half, tokens);
  }
}

size_t TokenDecide::scratch_bytes(const nvinfer1::Dims* inputs) const {
  const size_t batch = inputs[kConfidence].d[0], tokens = inputs[kConfidence].d[1];
  return (batch + batch * tokens) * sizeof(int);  // how many stay in each image, and every token's slot
}

std::string TokenDecide::wrong_sizes(const nvinfer1::PluginTensorDesc* inputs) const {
  if (inputs[kConfidence].dims.d[1] <= kMostTokens) return "";
  return "an image has " + std::to_string(inputs[kConfidence].dims.d[1]) + " tokens, more than the " +
         std::to_string(kMostTokens) + " it can decide on";
}

cudaError_t TokenDecide::run(const Call& call) const {
  const int batch = call.size(kConfidence, 0), tokens = call.size(kConfidence, 1);
  int* const staying = static_cast<int*>(call.workspace);
  const dovit_decide_args args{sizeof args,
                               call.in<float>(kConfidence),
                               call.in<float>(kThreshold),
                               call.in<int64_t>(kCapacities),
                               call.size(kCapacities, 0),
                               batch,
                               tokens,
                               staying,
                               call.out<int>(kKeep),
                               staying + batch,
                               call.out<int>(kCapacity),
                               /*switch_handle=*/0};
  return static_cast<cudaError_t>(dovit_decide(&args, call.stream));
}

nvinfer1::IPluginV3* TokenDecide::clone() noexcept { return new (std::nothrow) TokenDecide(layer(), values()); }

}  // namespace dovit
