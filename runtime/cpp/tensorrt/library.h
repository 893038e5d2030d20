// TensorRT or TensorRT-RTX, opened at run time.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "gpu/device.h"
#include "tensorrt/binding.h"
#include "tensorrt/runtime_cache.h"

namespace dovit::runtime {

// The library in this process: its version, and how its runtime is created.
class TensorRtLibrary {
 public:
  // `flavour`: tensorrt or tensorrt-rtx; `path` of its library, empty: where the system finds that of `version`. Needs
  // no GPU. Throws DovitError.
  TensorRtLibrary(const std::string& flavour, const std::string& path, const std::string& version);

  const std::string& title() const { return title_; }      // as in sentences
  const std::string& version() const { return version_; }  // such as 10.14.1.48
  void* handle() const { return handle_; }                 // of dlopen; the same for all sessions with this library
  std::unique_ptr<tensorrt::Runtime> create_runtime(tensorrt::ErrorLog& log) const;

  // Where compiled kernels are kept for this library and GPU.
  std::string cache_file(const Device& device) const;

 private:
  using Create = std::unique_ptr<tensorrt::Runtime> (*)(const tensorrt::Factory&, tensorrt::ErrorLog&);

  const std::string flavour_, title_;
  std::string version_;
  void* handle_ = nullptr;
  tensorrt::Factory factory_{};
  Create create_ = nullptr;
};

// The last error that TensorRT logged. Nothing is printed.
class LastError : public tensorrt::ErrorLog {
 public:
  void error(const char* message) noexcept override;
  std::string text() const;

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

// An engine, which sessions share. TensorRT allows contexts to be made by one thread at a time.
struct SharedEngine {
  const std::unique_ptr<tensorrt::Engine> engine;
  std::mutex mutex;
};

// TensorRT on one GPU, for all sessions of this process that use it: they share engines, the weights on the GPU with
// them, and compiled kernels.
class TensorRt {
 public:
  // That of the library and the device, which is current, created by the first session. Throws DovitError.
  static std::shared_ptr<TensorRt> share(const TensorRtLibrary& library, const Device& device);

  TensorRt(const TensorRtLibrary& library, const std::string& cache_file);

  const std::string& title() const { return title_; }
  std::string reason() const { return last_error_.text(); }
  RuntimeCache& runtime_cache() { return runtime_cache_; }

  // The engine of a plan. The caller has checked that `sha256` is the file's: a plan is code. A plan that another
  // session uses is not deserialized again. Throws DovitError.
  std::shared_ptr<SharedEngine> engine(const std::string& file, const std::string& sha256);

 private:
  std::shared_ptr<SharedEngine> deserialize(const std::string& file);

  const std::string title_;
  LastError last_error_;
  const std::unique_ptr<tensorrt::Runtime> runtime_;
  RuntimeCache runtime_cache_;
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<SharedEngine>> engines_;  // by hash
};

}  // namespace dovit::runtime
