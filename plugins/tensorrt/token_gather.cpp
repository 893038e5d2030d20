#include "token_gather.h"

#include <new>

#include "sequence.h"

namespace dovit {
namespace {

enum Input { kTokens, kIndex, kFull, kStoppedSum, kStoppedCount, kKeep };
enum Output { kNewTokens, kNewIndex, kNewFull, kNewSum, kNewCount };
enum AttributeNumber { kPrefix, kMerge, kCellSide, kColumns };

// The tiles' sums come first, then every token's slot.
size_t sums_bytes(int batch, int count, int channels) {
  return align(dovit_gather_scratch_bytes(batch, count, channels));
}

int up(int count, int of) { return (count + of - 1) / of; }

}  // namespace

const Signature& TokenGather::signature() {
  static const Signature signature{
      "TokenGather",
      {kPrefixAttribute,
       {"merge", 1, 1, "1 merges the stopped tokens into the class token, 0 leaves it as it is"},
       {"cell_side", 0, kMostTokens, "the patches along the side of a cell, 0 merges nothing by cell"},
       {"columns", 0, kMostTokens, "the patches in a row of the grid, which cell_side needs"}},
      {{"tokens", Element::kTokens, {"batch", "length", "channels"}},
       {"index", Element::kInt32, {"batch", "tokens"}},
       {"full", Element::kTokens, {"batch", "positions", "channels"}},
       {"stopped_sum", Element::kFloat, {"batch", "channels"}},
       {"stopped_count", Element::kInt64, {"1"}},
       {"keep", Element::kInt32, {"batch", "kept"}}},
      {{"new_tokens", Element::kTokens, {"batch", "new length", "channels"}},
       {"new_index", Element::kInt32, {"batch", "kept"}},
       {"new_full", Element::kTokens, {"batch", "positions", "channels"}},
       {"new_sum", Element::kFloat, {"batch", "channels"}},
       {"new_count", Element::kInt64, {"1"}}},
  };
  return signature;
}

TokenGather::TokenGather(std::string layer, std::vector<int32_t> values)
    : Plugin(signature(), std::move(layer), std::move(values)) {}

void TokenGather::shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs,
                         nvinfer1::IExprBuilder& builder) const {
  outputs[kNewTokens] = inputs[kTokens];
  outputs[kNewTokens].d[1] =
      builder.operation(nvinfer1::DimensionOperation::kSUM, *inputs[kKeep].d[1], *builder.constant(value(kPrefix)));
  outputs[kNewIndex] = inputs[kKeep];
  outputs[kNewFull] = inputs[kFull];
  outputs[kNewSum] = inputs[kStoppedSum];
  outputs[kNewCount] = inputs[kStoppedCount];
}

size_t TokenGather::scratch_bytes(const nvinfer1::Dims* inputs) const {
  const int batch = static_cast<int>(inputs[kIndex].d[0]), count = static_cast<int>(inputs[kIndex].d[1]);
  const int channels = static_cast<int>(inputs[kTokens].d[2]);
  return sums_bytes(batch, count, channels) + size_t(batch) * count * sizeof(int);
}

std::string TokenGather::wrong_sizes(const nvinfer1::PluginTensorDesc* inputs) const {
  const std::string wrong = wrong_length(inputs[kTokens].dims, inputs[kIndex].dims, value(kPrefix));
  const int side = value(kCellSide), columns = value(kColumns);
  if (!wrong.empty() || side == 0) return wrong;
  if (value(kMerge) != 0) return "with cell_side " + std::to_string(side) + " its attribute merge must be 0";
  const auto positions = static_cast<int>(inputs[kFull].dims.d[1]);
  if (columns == 0 || positions % columns != 0) {
    return "columns is " + std::to_string(columns) + ", which does not divide the " + std::to_string(positions) +
           " positions of full";
  }
  const int rows = positions / columns, cells = up(rows, side) * up(columns, side);
  if (cells <= value(kPrefix)) return "";
  return "prefix is " + std::to_string(value(kPrefix)) + ", but " + std::to_string(rows) + " by " +
         std::to_string(columns) + " patches have " + std::to_string(cells) + " cells of " + std::to_string(side) +
         " by " + std::to_string(side) + ", a token each among the prefix";
}

cudaError_t TokenGather::run(const Call& call) const {
  const int batch = call.size(kIndex, 0), count = call.size(kIndex, 1), capacity = call.size(kKeep, 1);
  const int channels = call.size(kTokens, 2), positions = call.size(kFull, 1);
  cudaError_t status = copy_sequence(call, kFull, kNewFull);
  if (status != cudaSuccess) return status;
  const bool merge = value(kMerge) != 0;
  if (!merge && call.from[kStoppedSum] != call.to[kNewSum]) {
    const size_t bytes = sizeof(float) * batch * channels;
    status = cudaMemcpyAsync(call.to[kNewSum], call.from[kStoppedSum], bytes, cudaMemcpyDeviceToDevice, call.stream);
    if (status != cudaSuccess) return status;
  }
  auto* const slots = reinterpret_cast<int*>(static_cast<char*>(call.workspace) + sums_bytes(batch, count, channels));
  const dovit_slots_args listed{sizeof listed, call.in<int>(kKeep), batch, count, capacity, slots};
  status = static_cast<cudaError_t>(dovit_slots(&listed, call.stream));
  if (status != cudaSuccess) return status;
  const dovit_gather_args args{sizeof args,
                               call.type(kTokens),
                               call.in<void>(kTokens),
                               call.in<int>(kIndex),
                               slots,
                               call.out<void>(kNewTokens),
                               call.out<int>(kNewIndex),
                               call.out<void>(kNewFull),
                               merge ? call.in<float>(kStoppedSum) : nullptr,
                               merge ? call.out<float>(kNewSum) : nullptr,
                               call.in<int64_t>(kStoppedCount),
                               call.out<int64_t>(kNewCount),
                               /*actual_count=*/nullptr,
                               batch,
                               count,
                               capacity,
                               value(kPrefix),
                               positions,
                               channels,
                               value(kCellSide),
                               value(kColumns),
                               call.workspace};
  return static_cast<cudaError_t>(dovit_gather(&args, call.stream));
}

nvinfer1::IPluginV3* TokenGather::clone() noexcept { return new (std::nothrow) TokenGather(layer(), values()); }

}  // namespace dovit
