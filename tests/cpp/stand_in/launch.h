// Queues a kernel's launch on a stream of the stand-in for libcuda: emulate.py rewrites launches as calls
// of this.
#pragma once

#include "../../emulator/emulator.h"
#include "../../emulator/include/cuda_runtime_api.h"
#include "stand_in.h"

namespace emulator {

template <class Kernel>
void queue(dim3 grid, dim3 shape, cudaStream_t stream, Kernel kernel) {
  int status = stand_in_called("launch");
  if (!status)
    status = stand_in_submit(reinterpret_cast<CUstream_st*>(stream), kStandInKernel,
                             [grid, shape, kernel] { launch(grid, shape, kernel); });
  if (status) last_error = static_cast<cudaError_t>(status);
}

}  // namespace emulator
