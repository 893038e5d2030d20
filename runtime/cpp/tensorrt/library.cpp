#include "tensorrt/library.h"

#include <dlfcn.h>

#include <fstream>
#include <iterator>
#include <vector>

#include "errors.h"

namespace dovit::runtime {

namespace {

// Never closed: its threads and CUDA's registrations outlive the last engine.
void* open_tensorrt(const std::string& title, const std::string& version, const std::string& name) {
  if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  const char* reason = dlerror();
  throw DovitError(text(title, "'s library cannot be opened (", reason ? reason : name, "): install ", title, " ",
                        version, ", or give the library's path as `tensorrt`"));
}

std::string file_name(const std::string& flavour, const std::string& version) {
  return (flavour == "tensorrt" ? "libnvinfer.so." : "libtensorrt_rtx.so.") + version.substr(0, version.find('.'));
}

std::string contents(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (!in.good() && !in.eof()) throw DovitError(text(file, ": cannot be read"));
  return bytes;
}

}  // namespace

TensorRtLibrary::TensorRtLibrary(const std::string& flavour, const std::string& path, const std::string& version)
    : flavour_(flavour), title_(flavour == "tensorrt" ? "TensorRT" : "TensorRT-RTX") {
  const std::string name = path.empty() ? file_name(flavour, version) : path;
  handle_ = open_tensorrt(title_, version, name);
  factory_.create_infer_runtime =
      reinterpret_cast<void* (*)(void*, int32_t)>(dlsym(handle_, "createInferRuntime_INTERNAL"));
  std::vector<int> parts;
  for (const char* part : {"Major", "Minor", "Patch", "Build"})
    if (const auto number =
            reinterpret_cast<int32_t (*)()>(dlsym(handle_, text("getInferLib", part, "Version").c_str())))
      parts.push_back(number());
  if (!factory_.create_infer_runtime || parts.size() != 4) throw DovitError(text(name, ": not ", title_, "'s library"));
  factory_.version = parts[0] * 10000 + parts[1] * 100 + parts[2];
  version_ = text(parts[0], ".", parts[1], ".", parts[2], ".", parts[3]);
  if (flavour == "tensorrt-rtx" && parts[0] == 1 && parts[1] >= 7) create_ = &tensorrt::create_runtime_tensorrt_rtx;
  if (flavour == "tensorrt" && parts[0] == 11) create_ = &tensorrt::create_runtime_tensorrt11;
  if (flavour == "tensorrt" && parts[0] == 10 && parts[1] >= 7) {
#ifdef DOVIT_WITH_TENSORRT10
    create_ = &tensorrt::create_runtime_tensorrt10;
#else
    throw DovitError(
        text("this libdovit_runtime was built without TensorRT 10's headers: build it again with "
             "TENSORRT_ROOT set to a TensorRT 10.7 or newer"));
#endif
  }
  if (!create_)
    throw DovitError(text(title_, " ", version_, " is not one that this libdovit_runtime knows: install ",
                          flavour == "tensorrt" ? "10.7 or newer, or 11" : "1.7 or newer", ", or a newer dovit"));
}

std::unique_ptr<tensorrt::Runtime> TensorRtLibrary::create_runtime(tensorrt::ErrorLog& log) const {
  return create_(factory_, log);
}

std::string TensorRtLibrary::cache_file(const Device& device) const {
  return runtime_cache_file(flavour_, version_, device.name, device.capability());
}

void LastError::error(const char* message) noexcept {
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    text_ = std::string(message).substr(0, 300);
  } catch (...) {  // no memory for the reason
  }
}

std::string LastError::text() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return text_.empty() ? "it does not say why" : text_;
}

std::shared_ptr<TensorRt> TensorRt::share(const TensorRtLibrary& library, const Device& device) {
  static std::mutex mutex;
  static std::map<std::pair<void*, CUcontext>, std::weak_ptr<TensorRt>> opened;
  const std::lock_guard<std::mutex> lock(mutex);
  std::weak_ptr<TensorRt>& known = opened[{library.handle(), device.context()}];
  std::shared_ptr<TensorRt> shared = known.lock();
  if (!shared) known = shared = std::make_shared<TensorRt>(library, library.cache_file(device));
  return shared;
}

TensorRt::TensorRt(const TensorRtLibrary& library, const std::string& cache_file)
    : title_(library.title()), runtime_(library.create_runtime(last_error_)), runtime_cache_(cache_file) {
  if (!runtime_) throw DovitError(text(title_, " ", library.version(), " does not start: ", reason()));
}

std::shared_ptr<SharedEngine> TensorRt::engine(const std::string& file, const std::string& sha256) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::weak_ptr<SharedEngine>& known = engines_[sha256];
  std::shared_ptr<SharedEngine> shared = known.lock();
  if (!shared) known = shared = deserialize(file);
  return shared;
}

std::shared_ptr<SharedEngine> TensorRt::deserialize(const std::string& file) {
  const std::string plan = contents(file), invalid = runtime_->why_invalid(plan);
  std::unique_ptr<tensorrt::Engine> engine = invalid.empty() ? runtime_->deserialize(plan) : nullptr;
  if (!engine)
    throw DovitError(text(file, ": ", title_, " does not take this plan: ", invalid.empty() ? reason() : invalid));
  return std::shared_ptr<SharedEngine>(new SharedEngine{std::move(engine), {}});
}

}  // namespace dovit::runtime
