// Kernels that TensorRT-RTX compiles when it first sees a shape: kept for all contexts of this process, and on disk for
// the next, in the file that the Python runtime uses too (runtime/gpu/runtime_cache.py).
//
// TensorRT-RTX checks by itself that a file is of this version, GPU and driver, and takes no other. The folder holds
// code: it is the user's own, as ~/.cache is.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "tensorrt/binding.h"

namespace dovit::runtime {

// In the user's cache folder; empty where the user has none.
std::string runtime_cache_file(const std::string& flavour, const std::string& version, const std::string& gpu,
                               const std::string& capability);

class RuntimeCache {
 public:
  // `file`: where it is kept; empty: nowhere.
  explicit RuntimeCache(const std::string& file) : file_(file) {}

  // What contexts of `engine` are to be given, read from the file at the first call; null for full TensorRT, which
  // compiles nothing at run time. The cache lives as long as this object, which has to outlive every context.
  const tensorrt::CompiledKernels* get(tensorrt::Engine& engine);

  // Says, once, that a context does not take the cache.
  void refused();

  // Writes the file where there is something new. What cannot be written is compiled again next time, and a line on
  // standard error says so.
  void save();

 private:
  const std::string file_;
  std::mutex mutex_;
  bool asked_ = false, told_ = false;
  std::unique_ptr<tensorrt::CompiledKernels> kernels_;
  std::string saved_;  // the hash of what the file holds
};

}  // namespace dovit::runtime
