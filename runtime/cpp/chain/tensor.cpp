#include "chain/tensor.h"

#include <cstring>
#include <new>

namespace dovit::runtime {

namespace {

constexpr std::align_val_t kTensorAlignment{64};  // a cache line, and enough for any vector load

}  // namespace

DType dtype_of(const TensorSpec& spec) {
  for (size_t k = 0; k < DTypeNames::all.size(); ++k)
    if (spec.dtype == DTypeNames::all[k]) return static_cast<DType>(k);
  return DType::kFloat32;  // not reached: the reader takes no other name
}

DType label_type(const Manifest& manifest) { return manifest.classes <= 256 ? DType::kUint8 : DType::kInt16; }

size_t item_bytes(DType type) {
  switch (type) {
    case DType::kUint8:
      return 1;
    case DType::kInt16:
    case DType::kFloat16:
    case DType::kBfloat16:
      return 2;
    case DType::kInt64:
      return 8;
    default:
      return 4;
  }
}

int64_t Tensor::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

Tensor make_tensor(DType type, Shape shape) {
  Tensor tensor{type, std::move(shape), nullptr, nullptr};
  const size_t bytes = tensor.bytes() ? tensor.bytes() : 1;
  tensor.owner = std::shared_ptr<void>(::operator new(bytes, kTensorAlignment),
                                       [](void* memory) { ::operator delete(memory, kTensorAlignment); });
  tensor.data = tensor.owner.get();
  return tensor;
}

Tensor copied(const Tensor& source) {
  Tensor copy = make_tensor(source.type, source.shape);
  std::memcpy(copy.data, source.data, source.bytes());
  return copy;
}

}  // namespace dovit::runtime
