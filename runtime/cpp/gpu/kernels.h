// The kernels of the token pass, from libdovit_plugins.so, opened at run time. plugins/kernels/dovit_kernels.h
// documents their arguments. Launches are asynchronous; each throws DovitError where CUDA returns an error.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "chain/tensor.h"
#include "dovit_kernels.h"
#include "gpu/device.h"

namespace dovit::runtime {

// A device address that converts to the pointer type of a kernel's argument.
struct DevicePointer {
  CUdeviceptr address;
  template <class T>
  operator T*() const {
    return reinterpret_cast<T*>(address);
  }
};

// The number of tokens' or logits' type in a kernel's arguments. Throws DovitError for any other.
int32_t kernel_type(DType type);

// A kernel's struct of arguments, as dovit_kernels.h declares it; the field `size` is left out.
struct KernelLayout {
  struct Field {
    std::string name;
    size_t offset, bytes;
  };
  std::string name;
  size_t bytes;
  std::vector<Field> fields;
};

// All kernels, and the one of this name. Throws DovitError where there is none.
const std::vector<KernelLayout>& kernel_layouts();
const KernelLayout& kernel_layout(const std::string& name);

class Kernels {
 public:
  // `path` of the library; empty: beside this one, or where the system finds it.
  explicit Kernels(const std::string& path);

  // Queues a kernel with a block of arguments in its layout, `size` too.
  void launch(const std::string& kernel, const void* arguments, CUstream stream) const;

  // Bytes of scratch memory that a kernel needs: its dovit_{kernel}_scratch_bytes. Throws DovitError where it has none.
  size_t scratch_bytes(const std::string& kernel, const std::array<int64_t, 3>& arguments) const;

  // `size` of the arguments is filled in.
  void resized_labels(dovit_resized_labels_args arguments, CUstream stream) const;
  void resize(dovit_resize_args arguments, CUstream stream) const;

 private:
  using Launcher = int (*)(const void* arguments, void* stream);

  const std::string path_;  // in sentences
  void* const library_;
  std::map<std::string, Launcher> launchers_;
  decltype(&dovit_error_string) error_string_ = nullptr;
};

}  // namespace dovit::runtime
