// As much of the CUDA runtime as the launchers use, on the host: see ../emulator.h.
#pragma once

#include <cstddef>
#include <utility>

#define CUDART_VERSION 13000

enum cudaError_t : int { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorNotSupported = 801 };
using cudaStream_t = struct EmulatedStream*;
using cudaGraphConditionalHandle = unsigned long long;

namespace emulator {
inline thread_local cudaError_t last_error = cudaSuccess;  // of launches that are queued; at once, none fails
}
inline cudaError_t cudaGetLastError() { return std::exchange(emulator::last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t status) { return status == cudaSuccess ? "no error" : "an error"; }
// A handle is the address of the number.
inline void cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned value) {
  *reinterpret_cast<unsigned*>(handle) = value;
}
