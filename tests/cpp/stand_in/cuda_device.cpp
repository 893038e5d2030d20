// Devices and their primary contexts, and which of them a thread works in.
#include <cstring>

#include "cuda_functions.h"
#include "cuda_stream.h"

namespace stand_in {

namespace {

// A thread's stack of contexts; empty again after a reset.
std::vector<CUcontext>& stack() {
  thread_local std::vector<CUcontext> contexts;
  thread_local unsigned resets = 0;
  if (resets != state().resets) contexts.clear();
  resets = state().resets;
  return contexts;
}

Device* device_at(CUdevice number) {
  auto& devices = state().devices;
  return number >= 0 && static_cast<size_t>(number) < devices.size() ? &devices[number] : nullptr;
}

bool is_alive(CUcontext context) {
  for (const Device& device : state().devices)
    if (device.context == context && device.retained > 0) return true;
  return false;
}

}  // namespace

CUcontext current_context() { return stack().empty() || !is_alive(stack().back()) ? nullptr : stack().back(); }

CUresult init(unsigned flags) {
  const Call call("cuInit", kNothing);
  if (call.refused) return call.refused;
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  State& s = state();
  if (s.device_count == 0) return CUDA_ERROR_NO_DEVICE;
  if (!s.initialised)
    for (int k = 0; k < s.device_count; ++k) {
      s.devices.push_back({new_handle<CUcontext>(), std::make_shared<Stream>(), 0});
      s.devices.back().default_stream->context = s.devices.back().context;
    }
  s.initialised = true;
  return CUDA_SUCCESS;
}

CUresult driver_get_version(int* version) {
  const Call call("cuDriverGetVersion", kNothing);
  if (!call.refused) *version = state().driver_version;
  return call.refused;
}

CUresult device_get_count(int* count) {
  const Call call("cuDeviceGetCount", kDriver);
  if (!call.refused) *count = static_cast<int>(state().devices.size());
  return call.refused;
}

CUresult device_get(CUdevice* device, int ordinal) {
  const Call call("cuDeviceGet", kDriver);
  if (call.refused) return call.refused;
  if (!device_at(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult device_get_name(char* name, int length, CUdevice device) {
  const Call call("cuDeviceGetName", kDriver);
  if (call.refused) return call.refused;
  if (!device_at(device)) return CUDA_ERROR_INVALID_DEVICE;
  if (length <= 0) return CUDA_ERROR_INVALID_VALUE;
  std::memset(name, 0, static_cast<size_t>(length));
  std::strncpy(name, "stand-in GPU", static_cast<size_t>(length) - 1);
  return CUDA_SUCCESS;
}

CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  const Call call("cuDeviceGetAttribute", kDriver);
  if (call.refused) return call.refused;
  if (!device_at(device)) return CUDA_ERROR_INVALID_DEVICE;
  if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
    *value = state().capability_major;
  else if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
    *value = state().capability_minor;
  else
    return CUDA_ERROR_NOT_SUPPORTED;  // by this stand-in: no test needs it
  return CUDA_SUCCESS;
}

CUresult device_primary_ctx_retain(CUcontext* context, CUdevice device) {
  const Call call("cuDevicePrimaryCtxRetain", kDriver);
  if (call.refused) return call.refused;
  Device* found = device_at(device);
  if (!found) return CUDA_ERROR_INVALID_DEVICE;
  ++found->retained;
  *context = found->context;
  return CUDA_SUCCESS;
}

CUresult device_primary_ctx_release(CUdevice device) {
  const Call call("cuDevicePrimaryCtxRelease", kDriver, kAfterwards);
  if (call.refused) return call.refused;
  Device* found = device_at(device);
  if (!found) return CUDA_ERROR_INVALID_DEVICE;
  if (found->retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
  --found->retained;
  return call.outcome;
}

CUresult ctx_push_current(CUcontext context) {
  const Call call("cuCtxPushCurrent", kDriver);
  if (call.refused) return call.refused;
  if (!is_alive(context)) return CUDA_ERROR_INVALID_CONTEXT;
  stack().push_back(context);
  return CUDA_SUCCESS;
}

CUresult ctx_pop_current(CUcontext* context) {
  const Call call("cuCtxPopCurrent", kDriver, kAfterwards);
  if (call.refused) return call.refused;
  if (stack().empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (context) *context = stack().back();
  stack().pop_back();
  return call.outcome;
}

}  // namespace stand_in
