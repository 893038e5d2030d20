// A model's outputs are checked before they are used as sizes, indices or labels: hashes prove that a bundle's files
// are those that were exported, not that the model in them computes what the manifest declares.
#pragma once

#include "chain/executor.h"

namespace dovit::runtime {

// Type, rank and sizes of a tensor that step `step` made, and that it has memory. Throws DovitError.
void check_made(const std::string& step, const std::string& name, const Tensor& made, DType type, const Shape& shape);

// The same of the list that a decision made of the `before` tokens that were left: int32 [1, K], K no more than they.
void check_keep(const std::string& step, const std::string& name, const Tensor& made, int64_t before);

// One decision over the `before` tokens that were left, of `tokens` in the image: a confidence and a position each;
// positions and kept indices ascending, and within their range. Throws DovitError.
void check_decided(const DecisionResult& decided, const DecisionSpec& decision, int64_t before, int64_t tokens);

// That every label is a class, in a tensor of any of the integer types. Throws DovitError.
void check_labels(const Tensor& labels, int64_t classes);

}  // namespace dovit::runtime
