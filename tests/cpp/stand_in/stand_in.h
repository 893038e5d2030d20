// What the stand-in for libcuda has beside CUDA's functions: how tests set it up and look into it, and how the other
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
// The nth call from now fails, every one where `nth` is -1: of a CUDA function by its base name
// (CUDA_ERROR_ILLEGAL_ADDRESS), of `launch`, which is a kernel's, or of TensorRT's `deserializeCudaEngine`,
// `createExecutionContext` (with a runtime configuration as well), `setInputShape`, `setTensorAddress`, `enqueueV3`,
// `getEngineValidity`, `setRuntimeCache`, each in its own way; `isStreamCapturable` says no; `compile` is
// TensorRT-RTX's compiler, called once for each shape that no cache knows. What frees something has freed it
// nonetheless, as where CUDA reports an earlier error; what waits has dropped what was queued.
STAND_IN_API void stand_in_fail(const char* function, int nth);
// The nth captured enqueueV3 from now leaves a host node in the graph.
STAND_IN_API void stand_in_add_unsupported_node(int nth);
// How often a function was called since the last reset, of everything or of the calls alone.
STAND_IN_API int stand_in_calls(const char* function);
STAND_IN_API void stand_in_reset_calls();
// How many there are: memory, pinned, stream, event, graph (bodies not counted), exec, primary (uses of primary
// contexts), and of TensorRT context, engine, runtime, cache. -1 for any other word.
STAND_IN_API int stand_in_alive(const char* kind);
// Everything as it was when the library was loaded; every handle is void. Not beside other threads' calls.
STAND_IN_API void stand_in_reset();

// --- for the other stand-ins ---

enum StandInNode { kStandInKernel = 0, kStandInHost = 3 };  // as CUgraphNodeType numbers them

// Queues `work` on a stream, or adds it to the graph that the stream captures. Returns a CUresult. What `work` throws
// is a failure on the GPU, which the stream has from then on.
STAND_IN_API int stand_in_submit(CUstream_st* stream, StandInNode type, const std::function<void()>& work);
// Counts a call; a CUresult other than 0 where it is to fail.
STAND_IN_API int stand_in_called(const char* function);
STAND_IN_API bool stand_in_captures(CUstream_st* stream);
STAND_IN_API bool stand_in_has_context();
// Counts a captured enqueueV3, and whether it is to leave an unsupported node.
STAND_IN_API bool stand_in_unsupported_node_is_due();
// Whether these bytes lie in one piece of memory that is alive.
STAND_IN_API bool stand_in_holds(const void* place, size_t bytes);
// One `kind` more (+1) or less (-1).
STAND_IN_API void stand_in_count(const char* kind, int change);
