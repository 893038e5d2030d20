#include "chain/check_outputs.h"

#include <algorithm>

#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr const char* kRemedy = "; the model in this bundle is wrong: export it again";

std::string described(DType type, const Shape& shape) {
  return text(DTypeNames::all[static_cast<size_t>(type)], " [", joined(shape), "]");
}

void check_count(const std::string& name, size_t count, int64_t expected) {
  if (static_cast<int64_t>(count) != expected)
    throw DovitError(
        text("tensor ", name, " has ", count, " values, expected one for each of ", expected, " tokens", kRemedy));
}

void check_ascending(const std::string& name, const std::vector<int32_t>& indices, int64_t limit) {
  int64_t last = -1;
  for (const int32_t index : indices) {
    if (index < 0 || index >= limit)
      throw DovitError(text("tensor ", name, " has the index ", index, ", expected 0 to ", limit - 1, kRemedy));
    if (index <= last)
      throw DovitError(
          text("tensor ", name, " has the index ", index, " after ", last, ", expected ascending indices", kRemedy));
    last = index;
  }
}

template <class T>
void check_labels(const T* labels, int64_t count, int64_t classes) {
  if (!count) return;
  const auto [least, most] = std::minmax_element(labels, labels + count);
  for (const int64_t label : {static_cast<int64_t>(*least), static_cast<int64_t>(*most)})
    if (label < 0 || label >= classes)
      throw DovitError(text("tensor labels has the label ", label, ", expected 0 to ", classes - 1, kRemedy));
}

}  // namespace

void check_made(const std::string& step, const std::string& name, const Tensor& made, DType type, const Shape& shape) {
  if (made.type != type || made.shape != shape)
    throw DovitError(text("step ", step, " made ", name, " as ", described(made.type, made.shape), ", expected ",
                          described(type, shape), kRemedy));
  if (!made.data && made.elements() > 0) throw DovitError(text("step ", step, " did not make ", name, kRemedy));
}

void check_keep(const std::string& step, const std::string& name, const Tensor& made, int64_t before) {
  const Shape& shape = made.shape;
  if (made.type != DType::kInt32 || shape.size() != 2 || shape[0] != 1 || shape[1] < 0 || shape[1] > before)
    throw DovitError(text("step ", step, " made ", name, " as ", described(made.type, shape),
                          ", expected int32 [1, at most ", before, "]", kRemedy));
  check_made(step, name, made, DType::kInt32, shape);
}

void check_decided(const DecisionResult& decided, const DecisionSpec& decision, int64_t before, int64_t tokens) {
  check_count(decision.confidence, decided.confidence.size(), before);
  check_count(decision.state.index, decided.index.size(), before);
  check_ascending(decision.state.index, decided.index, tokens);
  check_ascending(decision.keep, decided.keep, before);
}

void check_labels(const Tensor& labels, int64_t classes) {
  switch (labels.type) {
    case DType::kUint8:
      return check_labels(labels.as<uint8_t>(), labels.elements(), classes);
    case DType::kInt16:
      return check_labels(labels.as<int16_t>(), labels.elements(), classes);
    case DType::kInt32:
      return check_labels(labels.as<int32_t>(), labels.elements(), classes);
    default:
      return check_labels(labels.as<int64_t>(), labels.elements(), classes);
  }
}

}  // namespace dovit::runtime
