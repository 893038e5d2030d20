// From a type known when a launcher is called to one known when it is compiled.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "launch.h"

namespace dovit {

// Calls `go` with a value of the element type that `type` names.
template <class F>
cudaError_t with_element(int32_t type, F&& go) {
  switch (type) {
    case DOVIT_FLOAT32:
      return go(float{});
    case DOVIT_FLOAT16:
      return go(__half{});
    case DOVIT_BFLOAT16:
      return go(__nv_bfloat16{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace dovit
