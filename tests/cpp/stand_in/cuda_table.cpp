// cuGetProcAddress, through which callers get every function.
#include <cstring>

#include "cuda_functions.h"
#include "cuda_state.h"

namespace stand_in {

namespace {

struct Entry {
  const char* name;
  int since;
  void* function;
};

const Entry kEntries[] = {
#define STAND_IN(name, since, function) {#name, since, reinterpret_cast<void*>(&function)},
#include "cuda_functions.inc"
#undef STAND_IN
};

struct Meaning {
  CUresult result;
  const char *name, *text;
};

#define MEANS(name, text) {name, #name, text}
const Meaning kMeanings[] = {
    MEANS(CUDA_SUCCESS, "no error"),
    MEANS(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    MEANS(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    MEANS(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    MEANS(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    MEANS(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    MEANS(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    MEANS(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    MEANS(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    MEANS(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    MEANS(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    MEANS(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
    MEANS(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    MEANS(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"),
    MEANS(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream"),
    MEANS(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "attempt to terminate a thread-local capture from another thread"),
};
#undef MEANS

const Meaning* meaning_of(CUresult result) {
  for (const Meaning& meaning : kMeanings)
    if (meaning.result == result) return &meaning;
  return nullptr;
}

}  // namespace

CUresult get_error_string(CUresult result, const char** text) {
  const Meaning* meaning = meaning_of(result);
  *text = meaning ? meaning->text : nullptr;
  return meaning ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult get_error_name(CUresult result, const char** name) {
  const Meaning* meaning = meaning_of(result);
  *name = meaning ? meaning->name : nullptr;
  return meaning ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// cuda.h promises success with a null pointer for what is not there, and CUDA_ERROR_INVALID_VALUE for a version newer
// than the driver; CUDA_ERROR_NOT_FOUND has been seen as well. So callers must handle all three.
CUresult get_proc_address(const char* symbol, void** function, int version, cuuint64_t,
                          CUdriverProcAddressQueryResult* status) {
  const Call call("cuGetProcAddress", kNothing);
  *function = nullptr;
  if (status) *status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  if (call.refused) return call.refused;
  const auto same_name = [&](const Entry& entry) { return std::strcmp(entry.name, symbol) == 0; };
  for (const Entry& entry : kEntries) {
    if (!same_name(entry)) continue;
    if (status) *status = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
    if (version > state().driver_version) return CUDA_ERROR_INVALID_VALUE;
    if (version < entry.since) return CUDA_SUCCESS;
    if (status) *status = CU_GET_PROC_ADDRESS_SUCCESS;
    *function = entry.function;
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_NOT_FOUND;
}

}  // namespace stand_in

STAND_IN_API CUresult cuGetProcAddress_v2(const char* symbol, void** function, int version, cuuint64_t flags,
                                          CUdriverProcAddressQueryResult* status) {
  return stand_in::get_proc_address(symbol, function, version, flags, status);
}
