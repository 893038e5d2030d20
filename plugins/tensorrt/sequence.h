// Helpers for the plugins that read token sequences.
#pragma once

#include <string>

#include "plugin.h"

namespace dovit {

// Tokens an image. Positions are the kernels' to count, and they are tested up to here.
inline constexpr int32_t kMostTokens = 65536;

inline constexpr Attribute kPrefixAttribute{
    "prefix", -1, kMostTokens, "the tokens before the patches: a class token, registers, the merged tokens of cells"};

// Workspaces begin at 256 bytes' alignment; parts of one should as well.
inline size_t align(size_t bytes) { return (bytes + 255) / 256 * 256; }

// Empty, or how tokens [batch, prefix + tokens, channels] and index [batch, tokens] contradict each other.
inline std::string wrong_length(const nvinfer1::Dims& tokens, const nvinfer1::Dims& index, int prefix) {
  if (tokens.d[1] == prefix + index.d[1]) return "";
  return "tokens has " + std::to_string(tokens.d[1]) + " of them and index " + std::to_string(index.d[1]) +
         ", but with prefix " + std::to_string(prefix) + " it should have " + std::to_string(prefix + index.d[1]);
}

// A plugin must not write to its inputs: the full sequence [batch, positions, channels] is copied, unless the caller
// has bound one buffer to both ends.
inline cudaError_t copy_sequence(const Call& call, int input, int output) {
  if (call.from[input] == call.to[output]) return cudaSuccess;
  const size_t element = call.type(input) == DOVIT_FLOAT32 ? 4 : 2;
  const size_t bytes = element * call.size(input, 0) * call.size(input, 1) * call.size(input, 2);
  return cudaMemcpyAsync(call.to[output], call.from[input], bytes, cudaMemcpyDeviceToDevice, call.stream);
}

}  // namespace dovit
