// What the stand-in for libcuda has besides CUDA's functions: how tests configure and inspect it, and how the other
// two stand-ins queue work. Nothing of CUDA's headers, so that the emulated kernels can include it.
#pragma once

#include <cstddef>
#include <functional>

struct CUstream_st;

#define STAND_IN_API extern "C" __attribute__((visibility("default")))

// --- for tests ---

// A machine with `devices` equal GPUs, before cuInit. `driver_version` as CUDA has it, such as 12080.
STAND_IN_API void stand_in_configure(int devices, int driver_version, int capability_major, int capability_minor,
                                     size_t free_bytes);
// Lets the nth call from now fail, or every call where `nth` is -1: of a CUDA function by its base name
// (CUDA_ERROR_ILLEGAL_ADDRESS), of `launch`, which is a kernel's, or of TensorRT's `deserializeCudaEngine`,
// `createExecutionContext` (with a runtime configuration as well), `setInputShape`, `setTensorAddress`, `enqueueV3`,
// `getEngineValidity`, `setRuntimeCache`, each in its own way; `isStreamCapturable` returns false; `compile` is
// TensorRT-RTX's compiler, called once for each shape that is in no cache. A function that frees something frees it
// and then fails, as where CUDA reports an earlier error; one that waits drops the queued work.
STAND_IN_API void stand_in_fail(const char* function, int nth);
// The nth captured enqueueV3 from now leaves a host node in the graph.
STAND_IN_API void stand_in_add_unsupported_node(int nth);
// How often a function was called since the last stand_in_reset or stand_in_reset_calls.
STAND_IN_API int stand_in_calls(const char* function);
STAND_IN_API void stand_in_reset_calls();
// How many objects exist of a kind: memory, pinned, stream, event, graph (bodies not counted), exec, primary (uses of
// primary contexts), and of TensorRT context, engine, runtime, cache. -1 for any other word.
STAND_IN_API int stand_in_alive(const char* kind);
// Restores the state after loading; every handle is invalid. Not while other threads call.
STAND_IN_API void stand_in_reset();

// --- for the other stand-ins ---

enum StandInNode { kStandInKernel = 0, kStandInHost = 3 };  // as CUgraphNodeType numbers them

// Queues `work` on a stream, or adds it to the graph that the stream captures. Returns a CUresult. An exception of
// `work` is a failure on the GPU: the stream reports it from then on.
STAND_IN_API int stand_in_submit(CUstream_st* stream, StandInNode type, const std::function<void()>& work);
// Counts a call; a CUresult other than 0 where it is to fail.
STAND_IN_API int stand_in_called(const char* function);
STAND_IN_API bool stand_in_captures(CUstream_st* stream);
STAND_IN_API bool stand_in_has_context();
// Counts a captured enqueueV3, and whether it is to leave an unsupported node.
STAND_IN_API bool stand_in_unsupported_node_is_due();
// Whether these bytes lie in one allocation that was not freed.
STAND_IN_API bool stand_in_holds(const void* place, size_t bytes);
// One `kind` more (+1) or less (-1).
STAND_IN_API void stand_in_count(const char* kind, int change);
