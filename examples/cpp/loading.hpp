// How a session is loaded, from the command line: what both examples take besides their own arguments.
#pragma once

#include <dovit.hpp>
#include <map>
#include <string>
#include <vector>

constexpr const char* kLoadingUsage =
    "[--backend auto|onnxruntime|tensorrt|tensorrt-rtx] [--device cpu|cuda:N] [--provider auto|cpu|openvino]\n"
    "  [--precision fp32|fp16|bf16] [--cache FOLDER] [--onnxruntime LIBONNXRUNTIME.so] [--openvino LIBOPENVINO_C.so]\n"
    "  [--tensorrt LIBNVINFER.so] [--plugins LIBDOVIT_PLUGINS.so]";

// Takes its options out of `arguments`, and leaves the others.
inline dovit::LoadOptions take_loading(std::vector<std::string>& arguments) {
  dovit::LoadOptions options;
  const std::map<std::string, std::string*> known = {
      {"--backend", &options.backend},         {"--device", &options.device},     {"--provider", &options.provider},
      {"--precision", &options.precision},     {"--cache", &options.cache},       {"--openvino", &options.openvino},
      {"--onnxruntime", &options.onnxruntime}, {"--tensorrt", &options.tensorrt}, {"--plugins", &options.plugins}};
  std::vector<std::string> left;
  for (std::size_t k = 0; k < arguments.size(); ++k) {
    const auto found = known.find(arguments[k]);
    if (found == known.end() || k + 1 == arguments.size())
      left.push_back(arguments[k]);
    else
      *found->second = arguments[++k];
  }
  arguments = left;
  return options;
}
