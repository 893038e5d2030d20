// A plan of the stand-in: the bytes of an ONNX file, run by ONNX Runtime on memory at given addresses.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "onnxruntime/library.h"

namespace stand_in {

using Dims = std::vector<int64_t>;

struct Port {
  dovit::runtime::ort::ElementType type{};
  Dims dims;  // -1 where any size is taken
};

// The shapes that an input may have.
struct Range {
  Dims least, most;
};
using Profile = std::map<std::string, Range>;

// Where a tensor lies, and for an input its shape.
struct Place {
  void* data = nullptr;
  Dims dims;
};

class OnnxPlan {
 public:
  // Throws an error of the C++ runtime's where the bytes are no ONNX file.
  OnnxPlan(const void* bytes, size_t size);
  ~OnnxPlan();
  OnnxPlan(const OnnxPlan&) = delete;
  OnnxPlan& operator=(const OnnxPlan&) = delete;

  // Reads all inputs before it writes an output. Any number of threads at a time.
  void run(const std::map<std::string, Place>& places) const;

  const std::string digest;  // of the bytes
  std::map<std::string, Port> inputs, outputs;
  std::vector<Profile> profiles;  // none where every shape is fixed, or the file does not say: see profiles_in

 private:
  std::shared_ptr<const dovit::runtime::OnnxRuntime> library_;
  dovit::runtime::ort::Session* session_ = nullptr;
};

}  // namespace stand_in
