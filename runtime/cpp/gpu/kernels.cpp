#include "gpu/kernels.h"

#include <dlfcn.h>

#include <filesystem>
#include <vector>

#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr const char* kKernelLibrary = "libdovit_plugins.so";

// The file of the library that this function is in; its folder is where the plugins are looked for first.
std::filesystem::path own_file() {
  Dl_info info{};
  return dladdr(reinterpret_cast<const void*>(&own_file), &info) && info.dli_fname ? info.dli_fname : "";
}

// Never closed: the CUDA runtime inside registers its kernels for as long as the process lives.
void* open_kernel_library(const std::string& path) {
  std::vector<std::string> names{path};
  if (path.empty()) names = {own_file().parent_path() / kKernelLibrary, kKernelLibrary};
  std::string why;
  for (const std::string& name : names) {
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    const char* reason = dlerror();
    why = reason ? reason : name;
  }
  throw DovitError(text("the kernels' library cannot be opened (", why, "): build it with cmake --preset release, put ",
                        kKernelLibrary, " beside libdovit_runtime.so, or give its path as `plugins`"));
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

const std::vector<KernelLayout>& kernel_layouts() {
  static const std::vector<KernelLayout> layouts{
#include "kernel_layouts.inc"
  };
  return layouts;
}

const KernelLayout& kernel_layout(const std::string& name) {
  for (const KernelLayout& layout : kernel_layouts())
    if (layout.name == name) return layout;
  throw DovitError(text("dovit_kernels.h has no kernel '", name, "'"));
}

Kernels::Kernels(const std::string& path)
    : path_(path.empty() ? kKernelLibrary : path), library_(open_kernel_library(path)) {
  const auto take = [&](const char* name) {
    void* found = dlsym(library_, name);
    if (!found)
      throw DovitError(text(path_, ": not dovit's kernels, or of another version (it has no ", name,
                            "): take it from the same dovit as libdovit_runtime"));
    return found;
  };
  for (const KernelLayout& layout : kernel_layouts())
    launchers_[layout.name] = reinterpret_cast<Launcher>(take(text("dovit_", layout.name).c_str()));
  error_string_ = reinterpret_cast<decltype(error_string_)>(take("dovit_error_string"));
}

void Kernels::launch(const std::string& kernel, const void* arguments, CUstream stream) const {
  const int status = launchers_.at(kernel)(arguments, stream);
  if (status) throw DovitError(text("the kernel ", kernel, " could not be launched: ", error_string_(status)));
}

size_t Kernels::scratch_bytes(const std::string& kernel, const std::array<int64_t, 3>& arguments) const {
  const std::string name = text("dovit_", kernel_layout(kernel).name, "_scratch_bytes");
  const auto function = reinterpret_cast<size_t (*)(int32_t, int32_t, int32_t)>(dlsym(library_, name.c_str()));
  if (!function) throw DovitError(text(path_, ": it has no ", name));
  return function(static_cast<int32_t>(arguments[0]), static_cast<int32_t>(arguments[1]),
                  static_cast<int32_t>(arguments[2]));
}

void Kernels::resized_labels(dovit_resized_labels_args arguments, CUstream stream) const {
  arguments.size = sizeof arguments;
  launch("resized_labels", &arguments, stream);
}

void Kernels::resize(dovit_resize_args arguments, CUstream stream) const {
  arguments.size = sizeof arguments;
  launch("resize", &arguments, stream);
}

}  // namespace dovit::runtime
