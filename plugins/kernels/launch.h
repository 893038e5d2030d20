// What every kernel's launcher has in common.
#pragma once

#include <cuda_runtime_api.h>

#include "dovit_kernels.h"

// The function of dovit_kernels.h for a kernel, which calls dovit::launch_<name>(args, stream). Refuses the struct of
// another version.
#define DOVIT_KERNEL(name)                                                                                            \
  extern "C" __attribute__((visibility("default"))) int dovit_##name(const dovit_##name##_args* args, void* stream) { \
    if (args->size != sizeof *args) return cudaErrorInvalidValue;                                                     \
    return dovit::launch_##name(*args, static_cast<cudaStream_t>(stream));                                            \
  }
