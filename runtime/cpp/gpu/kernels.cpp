#include "gpu/kernels.h"

#include <dlfcn.h>

#include <filesystem>
#include <vector>

#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr const char* kName = "libdovit_plugins.so";

// The file of the library that this function is in; its folder is where the plugins are looked for first.
std::filesystem::path own_file() {
  Dl_info info{};
  return dladdr(reinterpret_cast<const void*>(&own_file), &info) && info.dli_fname ? info.dli_fname : "";
}

// Never closed: the CUDA runtime inside registers its kernels for as long as the process lives.
void* open_library(const std::string& path) {
  std::vector<std::string> names{path};
  if (path.empty()) names = {own_file().parent_path() / kName, kName};
  std::string why;
  for (const std::string& name : names) {
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    const char* reason = dlerror();
    why = reason ? reason : name;
  }
  throw DovitError(text("the kernels' library cannot be opened (", why, "): build it with cmake --preset release, put ",
                        kName, " beside libdovit_runtime.so, or give its path as `plugins`"));
}

}  // namespace

int32_t kernel_type(DType type) {
  switch (type) {
    case DType::kFloat32:
      return DOVIT_FLOAT32;
    case DType::kFloat16:
      return DOVIT_FLOAT16;
    case DType::kBfloat16:
      return DOVIT_BFLOAT16;
    default:
      throw DovitError("tokens are float32, float16 or bfloat16; export the bundle again");
  }
}

Kernels::Kernels(const std::string& path) {
  void* library = open_library(path);
  const auto take = [&](const char* name, auto& function) {
    void* found = dlsym(library, name);
    if (!found)
      throw DovitError(text(path.empty() ? kName : path, ": not dovit's kernels, or of another version (it has no ",
                            name, "): take it from the same dovit as libdovit_runtime"));
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
  };
  take("dovit_decide", decide_);
  take("dovit_gather_scratch_bytes", gather_scratch_bytes_);
  take("dovit_gather", gather_);
  take("dovit_reconstruct", reconstruct_);
  take("dovit_labels", labels_);
  take("dovit_resized_labels", resized_labels_);
  take("dovit_resize", resize_);
  take("dovit_error_string", error_string_);
}

void Kernels::check(int status, const char* name) const {
  if (status) throw DovitError(text("the kernel ", name, " could not be launched: ", error_string_(status)));
}

}  // namespace dovit::runtime
