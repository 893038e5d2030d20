// Which files an ONNX file takes its weights from, without a protobuf library: see runtime/bundle/external.py.
#pragma once

#include <set>
#include <stdexcept>
#include <string>
#include <string_view>

namespace dovit::runtime {

struct NotOnnx : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The `location` of every external tensor in an ONNX model. Throws NotOnnx where `content` is no protobuf message.
std::set<std::string> external_files(std::string_view content);

}  // namespace dovit::runtime
