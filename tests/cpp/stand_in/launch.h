// A kernel's launch on a stream of the stand-in for libcuda, in place of at once: emulate.py writes launches as calls
// of this.
#pragma once

#include <mutex>

#include "../../emulator/emulator.h"
#include "../../emulator/include/cuda_runtime_api.h"
#include "stand_in.h"

namespace emulator {

inline std::mutex one_kernel;  // runs at a time, for its __shared__ memory is static

template <class Kernel>
void queue(dim3 grid, dim3 shape, cudaStream_t stream, Kernel kernel) {
  int status = stand_in_called("launch");
  if (!status)
    status = stand_in_submit(reinterpret_cast<CUstream_st*>(stream), kStandInKernel, [grid, shape, kernel] {
      const std::lock_guard<std::mutex> turn(one_kernel);
      launch(grid, shape, kernel);
    });
  if (status) last_error = static_cast<cudaError_t>(status);
}

}  // namespace emulator
