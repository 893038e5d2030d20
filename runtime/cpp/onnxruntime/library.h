// ONNX Runtime's library, opened at run time, and its environment: one memory arena for all steps.
#pragma once

#include <memory>
#include <string>

#include "non_copyable.h"
#include "onnxruntime/api.h"

namespace dovit::runtime {

class OnnxRuntime : NonCopyable {
 public:
  // Opens `path`, or, where it is empty, libonnxruntime.so.1 or libonnxruntime.so where the system finds them.
  // Throws DovitError where there is none, or one that is too old.
  explicit OnnxRuntime(const std::string& path);
  ~OnnxRuntime();

  // Throws DovitError with the first line of what ONNX Runtime says, after `what`.
  void check(ort::Status* status, const std::string& what) const;

  ort::Api api{nullptr};
  std::string version;  // such as 1.31.1
  ort::Env* env = nullptr;
  ort::MemoryInfo* memory = nullptr;

 private:
  void make_environment();
};

}  // namespace dovit::runtime
