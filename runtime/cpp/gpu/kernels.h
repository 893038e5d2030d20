// The kernels of the token pass, from libdovit_plugins.so, opened at run time. plugins/kernels/dovit_kernels.h says
// what each of them reads and writes. None waits; each throws DovitError where CUDA refuses the launch.
#pragma once

#include <string>

#include "chain/tensor.h"
#include "dovit_kernels.h"
#include "gpu/device.h"

namespace dovit::runtime {

// An address on the device, as the pointer that a field of a kernel's arguments is.
struct At {
  CUdeviceptr place;
  template <class T>
  operator T*() const {
    return reinterpret_cast<T*>(place);
  }
};

// The number of tokens' or logits' type in a kernel's arguments. Throws DovitError for any other.
int32_t kernel_type(DType type);

class Kernels {
 public:
  // `path` of the library; empty: beside this one, or where the system finds it.
  explicit Kernels(const std::string& path);

  // `size` of the arguments is filled in.
  void decide(dovit_decide_args args, CUstream stream) const { launch(decide_, args, stream, "decide"); }
  void gather(dovit_gather_args args, CUstream stream) const { launch(gather_, args, stream, "gather"); }
  void reconstruct(dovit_reconstruct_args args, CUstream stream) const {
    launch(reconstruct_, args, stream, "reconstruct");
  }
  void labels(dovit_labels_args args, CUstream stream) const { launch(labels_, args, stream, "labels"); }
  void resized_labels(dovit_resized_labels_args args, CUstream stream) const {
    launch(resized_labels_, args, stream, "resized_labels");
  }
  void resize(dovit_resize_args args, CUstream stream) const { launch(resize_, args, stream, "resize"); }
  size_t gather_scratch_bytes(int batch, int count, int channels) const {
    return gather_scratch_bytes_(batch, count, channels);
  }

 private:
  template <class Args>
  void launch(int (*function)(const Args*, void*), Args args, CUstream stream, const char* name) const {
    args.size = sizeof args;
    check(function(&args, stream), name);
  }
  void check(int status, const char* name) const;

  decltype(&dovit_decide) decide_ = nullptr;
  decltype(&dovit_gather_scratch_bytes) gather_scratch_bytes_ = nullptr;
  decltype(&dovit_gather) gather_ = nullptr;
  decltype(&dovit_reconstruct) reconstruct_ = nullptr;
  decltype(&dovit_labels) labels_ = nullptr;
  decltype(&dovit_resized_labels) resized_labels_ = nullptr;
  decltype(&dovit_resize) resize_ = nullptr;
  decltype(&dovit_error_string) error_string_ = nullptr;
};

}  // namespace dovit::runtime
