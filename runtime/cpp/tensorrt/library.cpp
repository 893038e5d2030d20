#include "tensorrt/library.h"

#include <dlfcn.h>

#include <vector>

#include "errors.h"

namespace dovit::runtime {

namespace {

// Never closed: its threads and CUDA's registrations outlive the last engine.
void* open_library(const std::string& title, const std::string& version, const std::string& name) {
  if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  const char* reason = dlerror();
  throw DovitError(text(title, "'s library cannot be opened (", reason ? reason : name, "): install ", title, " ",
                        version, ", or give the library's path as `tensorrt`"));
}

std::string name_of(const std::string& flavour, const std::string& version) {
  return (flavour == "tensorrt" ? "libnvinfer.so." : "libtensorrt_rtx.so.") + version.substr(0, version.find('.'));
}

}  // namespace

TensorRt::TensorRt(const std::string& flavour, const std::string& path, const std::string& version)
    : title_(flavour == "tensorrt" ? "TensorRT" : "TensorRT-RTX") {
  const std::string name = path.empty() ? name_of(flavour, version) : path;
  void* library = open_library(title_, version, name);
  create_runtime_ = reinterpret_cast<void* (*)(const void*, int32_t)>(dlsym(library, "createInferRuntime_INTERNAL"));
  std::vector<int> parts;
  for (const char* part : {"Major", "Minor", "Patch", "Build"})
    if (const auto number =
            reinterpret_cast<int32_t (*)()>(dlsym(library, text("getInferLib", part, "Version").c_str())))
      parts.push_back(number());
  if (!create_runtime_ || parts.size() != 4) throw DovitError(text(name, ": not ", title_, "'s library"));
  number_ = parts[0] * 10000 + parts[1] * 100 + parts[2];
  version_ = text(parts[0], ".", parts[1], ".", parts[2], ".", parts[3]);
  if (flavour == "tensorrt")
    slots_ = number_ >= 100700 && parts[0] == 10 ? &kTensorRt10 : parts[0] == 11 ? &kTensorRt11 : nullptr;
  else
    slots_ = parts[0] == 1 && parts[1] >= 7 ? &kTensorRtRtx1 : nullptr;
  if (!slots_)
    throw DovitError(text(title_, " ", version_, " is not one that this libdovit_runtime knows: install ",
                          flavour == "tensorrt" ? "10.7 or newer, or 11" : "1.7 or newer", ", or a newer dovit"));
}

void TensorRt::start() {
  const void* logger = slots_->log ? static_cast<const void*>(&new_logger_) : &old_logger_;
  runtime_.reset(static_cast<Handed*>(create_runtime_(logger, number_)));
  if (!runtime_) throw DovitError(text(title_, " ", version_, " does not start: ", reason()));
}

Owned TensorRt::deserialize(const std::string& plan, const std::string& file) const {
  Owned engine(call<Handed*>(runtime_->implementation, slots_->deserialize_cuda_engine,
                             static_cast<const void*>(plan.data()), plan.size()));
  if (!engine) throw DovitError(text(file, ": ", title_, " does not take this plan: ", reason()));
  return engine;
}

std::string TensorRt::reason() const { return last_error_.text(); }

}  // namespace dovit::runtime
