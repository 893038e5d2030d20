#include "gpu/driver.h"

#include <dlfcn.h>

#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr const char* kNoGpu = "no NVIDIA GPU was found";

// Never closed: CUDA's own threads outlive the session that opened it.
void* open_driver() {
  if (void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) return library;
  const char* reason = dlerror();
  throw DovitError(text(kNoGpu, " (", reason ? reason : "libcuda.so.1", "): install its driver"));
}

}  // namespace

Driver::Driver() {
  const auto find =
      reinterpret_cast<PFN_cuGetProcAddress_v12000>(dlsym(open_driver(), "cuGetProcAddress_v2"));  // CUDA 12's
  if (!find) throw DovitError(text(kNoGpu, " (the driver is older than CUDA 12): update the driver"));
  const auto take = [&](const char* name, int since, auto& function) {
    void* found = nullptr;
    CUdriverProcAddressQueryResult result{};
    if (find(name, &found, since, CU_GET_PROC_ADDRESS_DEFAULT, &result) != CUDA_SUCCESS) found = nullptr;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
    return found != nullptr;
  };
#define X(name, since) \
  if (!take(#name, since, name)) throw DovitError(text(kNoGpu, " (the driver has no ", #name, "): update the driver"));
  DOVIT_DRIVER_FUNCTIONS(X)
#undef X
#define X(name, since) take(#name, since, name);
  DOVIT_SWITCH_FUNCTIONS(X)
#undef X
  check(cuInit(0), kNoGpu);
  check(cuDriverGetVersion(&version), kNoGpu);
}

void Driver::check(CUresult status, const std::string& what) const {
  if (status == CUDA_SUCCESS) return;
  const char* reason = nullptr;
  if (!cuGetErrorString || cuGetErrorString(status, &reason) != CUDA_SUCCESS || !reason) reason = "an unknown error";
  throw DovitError(text(what, ": ", reason));
}

std::string cuda_version(int number) { return text(number / 1000, ".", number % 1000 / 10); }

}  // namespace dovit::runtime
