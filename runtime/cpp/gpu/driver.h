// The CUDA driver, opened at run time: a program that links dovit starts on machines without one.
#pragma once

#include <cudaTypedefs.h>

#include <string>

namespace dovit::runtime {

// Functions with the CUDA version whose form of them is used.
#define DOVIT_DRIVER_FUNCTIONS(X)         \
  X(cuInit, 2000)                         \
  X(cuDriverGetVersion, 2020)             \
  X(cuGetErrorString, 6000)               \
  X(cuDeviceGet, 2000)                    \
  X(cuDeviceGetCount, 2000)               \
  X(cuDeviceGetName, 2000)                \
  X(cuDeviceGetAttribute, 2000)           \
  X(cuDevicePrimaryCtxRetain, 7000)       \
  X(cuDevicePrimaryCtxRelease, 11000)     \
  X(cuCtxPushCurrent, 4000)               \
  X(cuCtxPopCurrent, 4000)                \
  X(cuMemGetInfo, 3020)                   \
  X(cuMemAlloc, 3020)                     \
  X(cuMemFree, 3020)                      \
  X(cuMemHostAlloc, 2020)                 \
  X(cuMemFreeHost, 2000)                  \
  X(cuMemcpyAsync, 4000)                  \
  X(cuMemcpy2DAsync, 3020)                \
  X(cuMemsetD8Async, 3020)                \
  X(cuStreamCreate, 2000)                 \
  X(cuStreamDestroy, 4000)                \
  X(cuStreamSynchronize, 2000)            \
  X(cuStreamWaitEvent, 3020)              \
  X(cuEventCreate, 2000)                  \
  X(cuEventDestroy, 4000)                 \
  X(cuEventRecord, 2000)                  \
  X(cuStreamBeginCapture, 10010)          \
  X(cuStreamEndCapture, 10000)            \
  X(cuGraphCreate, 10000)                 \
  X(cuGraphDestroy, 10000)                \
  X(cuGraphGetNodes, 10000)               \
  X(cuGraphNodeGetType, 10000)            \
  X(cuGraphChildGraphNodeGetGraph, 10000) \
  X(cuGraphInstantiateWithFlags, 11040)   \
  X(cuGraphLaunch, 10000)                 \
  X(cuGraphExecDestroy, 10000)

// What SWITCH nodes need besides; null with older drivers.
#define DOVIT_SWITCH_FUNCTIONS(X)       \
  X(cuStreamBeginCaptureToGraph, 12030) \
  X(cuStreamGetCaptureInfo, 12030)      \
  X(cuGraphAddNode, 12030)              \
  X(cuGraphConditionalHandleCreate, 12030)

struct Driver {
  // Throws DovitError where this machine has no driver, or one that is too old.
  Driver();

  // Throws DovitError with what CUDA says of `status`, after `what`.
  void check(CUresult status, const std::string& what) const;

  int version = 0;  // the newest CUDA that it runs, 12080 for 12.8
#define X(name, since) PFN_##name##_v##since name = nullptr;
  DOVIT_DRIVER_FUNCTIONS(X)
  DOVIT_SWITCH_FUNCTIONS(X)
#undef X
};

// 12.8 of 12080.
std::string cuda_version(int number);

}  // namespace dovit::runtime
