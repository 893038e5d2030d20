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

Transfers::Transfers(const LoadedProgram& program)
    : program_(program),
      image_(program.plans().device, static_cast<size_t>(program.program().tensor("image").bytes())),
      thresholds_(program.plans().device, static_cast<size_t>(program.program().tensor("thresholds").bytes())),
      results_(program.plans().device, static_cast<size_t>(program.program().result_bytes)) {}

void Transfers::write(const uint8_t* pixels) const { std::memcpy(image_.as(), pixels, image_.bytes()); }

void Transfers::write(const std::vector<double>& thresholds) const {
  for (size_t k = 0; k < thresholds.size(); ++k) thresholds_.as<float>()[k] = static_cast<float>(thresholds[k]);
}

void Transfers::enqueue_image(CUstream stream) const {
  copy(program_.device(), program_.address("image"), host_address(image_.as()), image_.bytes(), stream);
}

void Transfers::enqueue_thresholds(CUstream stream) const {
  copy(program_.device(), program_.address("thresholds"), host_address(thresholds_.as()), thresholds_.bytes(), stream);
}

void Transfers::enqueue_results(CUstream stream) const {
  copy(program_.device(), host_address(results_.as()), program_.results(), results_.bytes(), stream);
}

Pass Transfers::read() const {
  const Manifest& manifest = program_.manifest();
  Pass pass;
  int64_t before = manifest.tokens();  // tokens that the decision was made on
  for (size_t k = 0; k < manifest.decisions.size() && before > 0; ++k) {
    const DecisionTensors& made = program_.program().decisions[k];
    const int64_t kept = values<int32_t>(made.capacity, 1)[0];
    if (kept < 0 || kept > before)
      throw DovitError(text("decision ", k + 1, " kept ", kept, " of ", before, " tokens"));
    pass.decisions.push_back({values<float>(made.confidence, before), values<int32_t>(made.index, before),
                              values<int32_t>(made.keep, kept)});
    check_decided(pass.decisions.back(), manifest.decisions[k], before, manifest.tokens());
    before = kept;
  }
  return pass;
}

// Kernels make them as a caller gets them; a plan may make larger integers.
Tensor Transfers::labels() const {
  const Manifest& manifest = program_.manifest();
  Tensor made = make_tensor(label_type(manifest), {1, manifest.image_size[0], manifest.image_size[1]});
  const ArenaTensor& labels = program_.program().tensor("labels");
  const DType type = dtype_of({labels.name, labels.dtype, {}});
  void* from = results_.as() + labels.offset;
  check_labels({type, made.shape, from, nullptr}, manifest.classes);  // before they are made smaller
  switch (type) {
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
  const auto* first = reinterpret_cast<const T*>(results_.as() + program_.program().tensor(name).offset);
  return {first, first + count};
}

}  // namespace dovit::runtime
