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

void* at(CUdeviceptr place) { return reinterpret_cast<void*>(place); }

int number(DType type) {  // as launch.h numbers them
  switch (type) {
    case DType::kFloat32:
      return 0;
    case DType::kFloat16:
      return 1;
    case DType::kBfloat16:
      return 2;
    default:
      throw DovitError("tokens are float32, float16 or bfloat16; export the bundle again");
  }
}

}  // namespace

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

void Kernels::decide(const Decide& a, CUstream stream) const {
  check(decide_(at(a.confidence), at(a.threshold), at(a.capacities), a.capacity_count, a.batch, a.count, at(a.staying),
                at(a.keep), at(a.slots), at(a.capacity), a.switch_handle, stream),
        "decide");
}

size_t Kernels::gather_scratch_bytes(int batch, int count, int channels) const {
  return gather_scratch_bytes_(batch, count, channels);
}

void Kernels::gather(const Gather& a, CUstream stream) const {
  check(gather_(number(a.type), at(a.tokens), at(a.index), at(a.slots), at(a.kept), at(a.kept_index), at(a.full),
                at(a.sum_before), at(a.sum_after), at(a.stopped_before), at(a.stopped_after), at(a.actual_count),
                a.batch, a.count, a.capacity, a.prefix, a.positions, a.channels, at(a.scratch), stream),
        "gather");
}

void Kernels::reconstruct(const Reconstruct& a, CUstream stream) const {
  check(reconstruct_(number(a.type), at(a.tokens), at(a.index), at(a.full), a.batch, a.count, a.prefix, a.positions,
                     a.channels, stream),
        "reconstruct");
}

void Kernels::labels(const Labels& a, CUstream stream) const {
  check(labels_(number(a.type), at(a.logits), at(a.labels), a.batch, a.classes, a.height, a.width, a.scale, stream),
        "labels");
}

void Kernels::resized_labels(const ResizedLabels& a, CUstream stream) const {
  check(resized_labels_(number(a.type), at(a.logits), at(a.labels), a.batch, a.classes, a.height, a.width, a.out_height,
                        a.out_width, stream),
        "resized_labels");
}

void Kernels::resize(const Resize& a, CUstream stream) const {
  check(resize_(at(a.image), a.height, a.width, at(a.out), a.out_height, a.out_width, at(a.across), a.across_width,
                at(a.down), a.down_width, at(a.scratch), stream),
        "resize");
}

void Kernels::check(int status, const char* name) const {
  if (status) throw DovitError(text("the kernel ", name, " could not be launched: ", error_string_(status)));
}

}  // namespace dovit::runtime
