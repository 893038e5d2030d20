// A tensor between two steps: a name, a type, a shape, and memory, its own or a slot of the workspace.
#pragma once

#include <memory>
#include <string>

#include "chain/dimensions.h"

namespace dovit::runtime {

enum class DType { kUint8, kInt16, kInt32, kInt64, kFloat16, kBfloat16, kFloat32 };

DType dtype_of(const TensorSpec& spec);
DType label_type(const Manifest& manifest);
size_t item_bytes(DType type);

struct Tensor {
  DType type = DType::kFloat32;
  Shape shape;
  void* data = nullptr;
  std::shared_ptr<void>
      owner;  // what keeps `data` alive; empty for a slot of the workspace and for the caller's memory

  int64_t elements() const;
  size_t bytes() const { return static_cast<size_t>(elements()) * item_bytes(type); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// A tensor with memory of its own, uninitialised.
Tensor make_tensor(DType type, Shape shape);

// A tensor with a copy of `source`'s values.
Tensor copied(const Tensor& source);

}  // namespace dovit::runtime
