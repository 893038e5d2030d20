// What dovit_kernels.h has beside the kernels.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "dovit_kernels.h"
#include "resize_taps.h"

#define DOVIT_API extern "C" __attribute__((visibility("default")))

DOVIT_API int dovit_resize_taps(int32_t source, int32_t target, int32_t* taps, int32_t* width) {
  const dovit::ResizeTaps made = dovit::resize_taps(source, target);
  *width = made.width;
  if (taps) {
    for (const auto* part : {&made.first, &made.count, &made.weights})
      taps = std::copy(part->begin(), part->end(), taps);
  }
  return static_cast<int>(made.first.size() + made.count.size() + made.weights.size());
}

DOVIT_API const char* dovit_error_string(int status) { return cudaGetErrorString(static_cast<cudaError_t>(status)); }
