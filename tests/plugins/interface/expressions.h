// Shape expressions as TensorRT would make them: numbers, for all sizes are known here, and size tensors.
#pragma once

#include <NvInferRuntime.h>

#include <deque>
#include <vector>

#include "check.h"

// A size. That of a size tensor is what it is tuned for.
class Size : public nvinfer1::IDimensionExpr, public nvinfer1::apiv::VDimensionExpr {
 public:
  explicit Size(int64_t value, int32_t output = -1, int64_t largest = -1)
      : value(value), output(output), largest(largest) {
    mImpl = this;
  }
  Size(const Size&) = delete;
  bool isConstant() const override { return output < 0; }
  int64_t getConstantValue() const override { return value; }
  bool isSizeTensor() const override { return output >= 0; }

  const int64_t value;
  const int32_t output;   // which output of the plugin has the size, or none
  const int64_t largest;  // of a size tensor
};

inline const Size& size_of(const nvinfer1::IDimensionExpr* expression) { return *static_cast<const Size*>(expression); }

class Expressions : public nvinfer1::IExprBuilder, public nvinfer1::apiv::VExprBuilder {
 public:
  Expressions() { mImpl = this; }

  const nvinfer1::IDimensionExpr* constant(int64_t value) override { return &sizes_.emplace_back(value); }
  const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation operation,
                                            const nvinfer1::IDimensionExpr& first,
                                            const nvinfer1::IDimensionExpr& second) override {
    const int64_t a = size_of(&first).value, b = size_of(&second).value;
    switch (operation) {
      case nvinfer1::DimensionOperation::kSUM:
        return constant(a + b);
      case nvinfer1::DimensionOperation::kCEIL_DIV:
        return constant((a + b - 1) / b);
      default:
        CHECK(!"an operation that these expressions have");
        return nullptr;
    }
  }
  const nvinfer1::IDimensionExpr* declareSizeTensor(int32_t output, const nvinfer1::IDimensionExpr& tuned,
                                                    const nvinfer1::IDimensionExpr& largest) override {
    return &sizes_.emplace_back(size_of(&tuned).value, output, size_of(&largest).value);
  }
  nvinfer1::DimsExprs shape(const std::vector<int64_t>& sizes) {
    nvinfer1::DimsExprs dims{static_cast<int32_t>(sizes.size()), {}};
    for (size_t k = 0; k < sizes.size(); ++k) dims.d[k] = &sizes_.emplace_back(sizes[k]);
    return dims;
  }

 private:
  std::deque<Size> sizes_;  // whose elements stay where they are
};
