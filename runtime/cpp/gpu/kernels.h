// The launchers of the token pass's kernels, from libdovit_plugins.so, opened at run time. plugins/kernels/launch.h
// says what each of them reads and writes. None waits; each throws DovitError where CUDA refuses the launch.
#pragma once

#include <string>

#include "chain/tensor.h"
#include "gpu/device.h"

namespace dovit::runtime {

class Kernels {
 public:
  // `path` of the library; empty: beside this one, or where the system finds it.
  explicit Kernels(const std::string& path);

  struct Decide {
    CUdeviceptr confidence, threshold, capacities;
    int capacity_count, batch, count;
    CUdeviceptr staying, keep, slots, capacity;
    CUgraphConditionalHandle switch_handle;
  };
  void decide(const Decide& a, CUstream stream) const;

  struct Gather {
    DType type;
    CUdeviceptr tokens, index, slots, kept, kept_index, full, sum_before, sum_after, stopped_before, stopped_after,
        actual_count;
    int batch, count, capacity, prefix, positions, channels;
    CUdeviceptr scratch;
  };
  size_t gather_scratch_bytes(int batch, int count, int channels) const;
  void gather(const Gather& a, CUstream stream) const;

  struct Reconstruct {
    DType type;
    CUdeviceptr tokens, index, full;
    int batch, count, prefix, positions, channels;
  };
  void reconstruct(const Reconstruct& a, CUstream stream) const;

  struct Labels {
    DType type;
    CUdeviceptr logits, labels;
    int batch, classes, height, width, scale;
  };
  void labels(const Labels& a, CUstream stream) const;

  struct ResizedLabels {
    DType type;
    CUdeviceptr logits, labels;
    int batch, classes, height, width, out_height, out_width;
  };
  void resized_labels(const ResizedLabels& a, CUstream stream) const;

  struct Resize {
    CUdeviceptr image;
    int height, width;
    CUdeviceptr out;
    int out_height, out_width;
    CUdeviceptr across;
    int across_width;
    CUdeviceptr down;
    int down_width;
    CUdeviceptr scratch;
  };
  void resize(const Resize& a, CUstream stream) const;

 private:
  void check(int status, const char* name) const;

  // as plugins/kernels/c_api.cpp has them
  int (*decide_)(void*, void*, void*, int, int, int, void*, void*, void*, void*, unsigned long long, void*) = nullptr;
  size_t (*gather_scratch_bytes_)(int, int, int) = nullptr;
  int (*gather_)(int, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, int, int, int, int,
                 int, int, void*, void*) = nullptr;
  int (*reconstruct_)(int, void*, void*, void*, int, int, int, int, int, void*) = nullptr;
  int (*labels_)(int, void*, void*, int, int, int, int, int, void*) = nullptr;
  int (*resized_labels_)(int, void*, void*, int, int, int, int, int, int, void*) = nullptr;
  int (*resize_)(void*, int, int, void*, int, int, void*, int, void*, int, void*, void*) = nullptr;
  const char* (*error_string_)(int) = nullptr;
};

}  // namespace dovit::runtime
