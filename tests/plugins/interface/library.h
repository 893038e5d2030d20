// The plugin library as TensorRT uses it, but without TensorRT: loaded by name, called through its interfaces, its
// errors recorded.
#pragma once

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"

// A logger that keeps the messages.
class Recorder : public nvinfer1::ILogger, public nvinfer1::ILoggerFinder {
 public:
  void log(Severity severity, const char* message) noexcept override {
    CHECK(severity == Severity::kERROR);
    said_ = message;
  }
  nvinfer1::ILogger* findLogger() override { return this; }
  // The last message; it is removed.
  std::string said() { return std::exchange(said_, ""); }

 private:
  std::string said_;
};

class Library {
 public:
  explicit Library(const char* path) : handle_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (!handle_) {
      std::printf("%s\n", dlerror());
      std::exit(101);
    }
    symbol<void (*)(nvinfer1::ILoggerFinder*)>("setLoggerFinder")(&recorder);
  }
  ~Library() {
    symbol<void (*)(nvinfer1::ILoggerFinder*)>("setLoggerFinder")(nullptr);
    dlclose(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  template <class Function>
  Function symbol(const char* name) {
    return reinterpret_cast<Function>(dlsym(handle_, name));
  }
  std::vector<nvinfer1::IPluginCreatorV3One*> creators() {
    int32_t count = 0;
    auto* const* found = symbol<nvinfer1::IPluginCreatorInterface* const* (*)(int32_t&)>("getCreators")(count);
    std::vector<nvinfer1::IPluginCreatorV3One*> creators;
    for (int32_t k = 0; k < count; ++k) creators.push_back(static_cast<nvinfer1::IPluginCreatorV3One*>(found[k]));
    return creators;
  }
  nvinfer1::IPluginCreatorV3One* creator(const std::string& name) {
    for (auto* creator : creators())
      if (creator->getPluginName() == name) return creator;
    return nullptr;
  }

  Recorder recorder;

 private:
  void* handle_;
};

// A plugin and its three interfaces.
class Plugin {
 public:
  explicit Plugin(nvinfer1::IPluginV3* plugin) : plugin_(plugin) {}

  nvinfer1::IPluginV3* operator->() const { return plugin_.get(); }
  explicit operator bool() const { return plugin_ != nullptr; }
  nvinfer1::IPluginV3OneCore* core() const {
    return as<nvinfer1::IPluginV3OneCore>(nvinfer1::PluginCapabilityType::kCORE);
  }
  nvinfer1::IPluginV3OneBuild* build() const {
    return as<nvinfer1::IPluginV3OneBuild>(nvinfer1::PluginCapabilityType::kBUILD);
  }
  nvinfer1::IPluginV3OneRuntime* runtime() const {
    return as<nvinfer1::IPluginV3OneRuntime>(nvinfer1::PluginCapabilityType::kRUNTIME);
  }

 private:
  template <class Interface>
  Interface* as(nvinfer1::PluginCapabilityType type) const {
    return static_cast<Interface*>(plugin_->getCapabilityInterface(type));
  }
  std::unique_ptr<nvinfer1::IPluginV3> plugin_;
};

struct Field {
  const char* name;
  int64_t value;
};

// The plugin `kind`, made from 32-bit fields, as a parser makes it from a node of that name.
inline Plugin make(Library& library, const char* kind, const std::vector<Field>& given, const char* layer = "layer") {
  std::vector<int32_t> values;
  for (const Field& field : given) values.push_back(static_cast<int32_t>(field.value));
  std::vector<nvinfer1::PluginField> fields;
  for (size_t k = 0; k < given.size(); ++k)
    fields.emplace_back(given[k].name, &values[k], nvinfer1::PluginFieldType::kINT32, 1);
  const nvinfer1::PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
  return Plugin(library.creator(kind)->createPlugin(layer, &collection, nvinfer1::TensorRTPhase::kBUILD));
}

inline nvinfer1::Dims dims(const std::vector<int64_t>& sizes) {
  nvinfer1::Dims dims{static_cast<int32_t>(sizes.size()), {}};
  std::copy(sizes.begin(), sizes.end(), dims.d);
  return dims;
}

inline nvinfer1::PluginTensorDesc desc(nvinfer1::DataType type, const std::vector<int64_t>& sizes) {
  return {dims(sizes), type, nvinfer1::TensorFormat::kLINEAR, 1.0F};
}
