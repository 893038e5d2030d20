// From a type known when a launcher is called to one known when it is compiled.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "launch.h"

namespace dovit {

// Calls `go` with a value of the element type that `type` names.
template <class F>
cudaError_t with_element(Type type, F&& go) {
  switch (type) {
    case Type::kFloat:
      return go(float{});
    case Type::kHalf:
      return go(__half{});
    case Type::kBfloat16:
      return go(__nv_bfloat16{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace dovit
