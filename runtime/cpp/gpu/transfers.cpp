#include "gpu/transfers.h"

#include <algorithm>
#include <cstring>

#include "chain/check_outputs.h"
#include "errors.h"

namespace dovit::runtime {

namespace {

template <class From, class To>
void convert(const void* from, const Tensor& to) {
  const auto* values = static_cast<const From*>(from);
  std::transform(values, values + to.elements(), to.as<To>(), [](From value) { return static_cast<To>(value); });
}

template <class From>
void convert(const void* from, const Tensor& to) {
  to.type == DType::kUint8 ? convert<From, uint8_t>(from, to) : convert<From, int16_t>(from, to);
}

}  // namespace

Transfers::Transfers(const Program& program)
    : program_(program),
      labels_(program.made("labels")),
      image_(program.plans().device, program.memory().bytes.at(kImage)),
      thresholds_(program.plans().device, program.memory().bytes.at(kThresholds)),
      results_(program.plans().device, program.memory().results) {}

void Transfers::write(const uint8_t* pixels) const { std::memcpy(image_.as(), pixels, image_.bytes()); }

void Transfers::write(const std::vector<double>& thresholds) const {
  for (size_t k = 0; k < thresholds.size(); ++k) thresholds_.as<float>()[k] = static_cast<float>(thresholds[k]);
}

void Transfers::enqueue_image(CUstream stream) const {
  copy(program_.device(), program_.place(kImage), address(image_.as()), image_.bytes(), stream);
}

void Transfers::enqueue_thresholds(CUstream stream) const {
  copy(program_.device(), program_.place(kThresholds), address(thresholds_.as()), thresholds_.bytes(), stream);
}

void Transfers::enqueue_results(CUstream stream) const {
  copy(program_.device(), address(results_.as()), program_.results(), results_.bytes(), stream);
}

Pass Transfers::read() const {
  const Manifest& manifest = program_.manifest();
  Pass pass;
  int64_t came = manifest.tokens();
  for (size_t k = 0; k < manifest.decisions.size() && came > 0; ++k) {
    const DecisionSpec& decision = manifest.decisions[k];
    const int64_t kept = values<int32_t>(capacity_place(k + 1), 1)[0];
    if (kept < 0 || kept > came) throw DovitError(text("decision ", k + 1, " kept ", kept, " of ", came, " tokens"));
    pass.decisions.push_back({values<float>(decision.confidence, came), values<int32_t>(decision.state.index, came),
                              values<int32_t>(decision.keep, kept)});
    check_decided(pass.decisions.back(), decision, came, manifest.tokens());
    came = kept;
  }
  return pass;
}

// Kernels make them as a caller gets them; a plan may make larger integers.
Tensor Transfers::labels() const {
  const Manifest& manifest = program_.manifest();
  Tensor made = make_tensor(label_type(manifest), {1, manifest.image_size[0], manifest.image_size[1]});
  void* from = results_.as() + program_.memory().offsets.at(labels_.name);
  check_labels({dtype_of(labels_), made.shape, from, nullptr}, manifest.classes);  // before they are made smaller
  switch (dtype_of(labels_)) {
    case DType::kUint8:
      convert<uint8_t>(from, made);
      break;
    case DType::kInt16:
      convert<int16_t>(from, made);
      break;
    case DType::kInt32:
      convert<int32_t>(from, made);
      break;
    default:
      convert<int64_t>(from, made);
  }
  return made;
}

template <class T>
std::vector<T> Transfers::values(const std::string& name, int64_t count) const {
  const auto* first = reinterpret_cast<const T*>(results_.as() + program_.memory().offsets.at(name));
  return {first, first + count};
}

}  // namespace dovit::runtime
