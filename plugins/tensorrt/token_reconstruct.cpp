#include "token_reconstruct.h"

#include <new>

#include "sequence.h"

namespace dovit {
namespace {

enum Input { kFull, kTokens, kIndex };
enum Output { kNewFull };

}  // namespace

const Signature& TokenReconstruct::signature() {
  static const Signature signature{
      "TokenReconstruct",
      {kPrefixAttribute},
      {{"full", Element::kTokens, {"batch", "positions", "channels"}},
       {"tokens", Element::kTokens, {"batch", "length", "channels"}},
       {"index", Element::kInt32, {"batch", "tokens"}}},
      {{"new_full", Element::kTokens, {"batch", "positions", "channels"}}},
  };
  return signature;
}

TokenReconstruct::TokenReconstruct(std::string layer, std::vector<int32_t> values)
    : Plugin(signature(), std::move(layer), std::move(values)) {}

void TokenReconstruct::shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
                              nvinfer1::IExprBuilder&) const {
  outputs[kNewFull] = inputs[kFull];
}

size_t TokenReconstruct::scratch_bytes(const nvinfer1::Dims*) const { return 0; }

std::string TokenReconstruct::wrong_sizes(const nvinfer1::PluginTensorDesc* inputs) const {
  return wrong_length(inputs[kTokens].dims, inputs[kIndex].dims, value(0));
}

cudaError_t TokenReconstruct::run(const Call& call) const {
  const cudaError_t status = copy_sequence(call, kFull, kNewFull);
  if (status != cudaSuccess) return status;
  const dovit_reconstruct_args args{sizeof args,
                                    call.type(kTokens),
                                    call.in<void>(kTokens),
                                    call.in<int>(kIndex),
                                    call.out<void>(kNewFull),
                                    call.size(kIndex, 0),
                                    call.size(kIndex, 1),
                                    value(0),
                                    call.size(kFull, 1),
                                    call.size(kFull, 2)};
  return static_cast<cudaError_t>(dovit_reconstruct(&args, call.stream));
}

nvinfer1::IPluginV3* TokenReconstruct::clone() noexcept {
  return new (std::nothrow) TokenReconstruct(layer(), values());
}

}  // namespace dovit
