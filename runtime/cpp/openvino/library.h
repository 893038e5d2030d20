// OpenVINO's library, opened at run time, and its CPU device.
#pragma once

#include <memory>
#include <string>

#include "non_copyable.h"
#include "openvino/api.h"

namespace dovit::runtime {

class OpenVino : NonCopyable {
 public:
  // Opens `path`, or, where it is empty, libopenvino_c.so where the system finds it. Throws DovitError where there is
  // none, one that cannot be used here, or none with a CPU device.
  explicit OpenVino(const std::string& path);
  ~OpenVino();

  // Throws DovitError with the sentence of OpenVINO's message, after `what`.
  void check(ov::Status status, const std::string& what) const;

  // Whether the CPU has bf16 instructions (AVX512-BF16 or AMX) that OpenVINO uses.
  bool computes_bf16() const;

  // Its version and the commit that it was built from.
  std::string build() const;

  ov::Api api;
  ov::Core* core = nullptr;

 private:
  void check_element_types() const;
  std::string property(const char* name) const;
};

}  // namespace dovit::runtime
