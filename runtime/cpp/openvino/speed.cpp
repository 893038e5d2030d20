#include "openvino/speed.h"

#include "errors.h"
#include "openvino/records.h"

namespace dovit::runtime {

namespace {

// As in runtime/openvino/speed.py, which measures, names the file and writes it.
constexpr int64_t kLargeMacs = 30'000'000'000;
constexpr int kSpeedMeasurement = 1;

}  // namespace

std::shared_ptr<const OnnxRuntime> onnxruntime_if_faster(const Bundle& bundle, const std::string& path,
                                                         const OpenVino& openvino, const std::string& library,
                                                         int threads) {
  if (bundle.manifest.dense_macs[1] >= kLargeMacs) return nullptr;
  std::shared_ptr<const OnnxRuntime> onnxruntime;
  try {
    onnxruntime = std::make_shared<const OnnxRuntime>(library);
  } catch (const DovitError&) {
    if (!library.empty()) throw;  // a library that the caller named is meant
    return nullptr;
  }
  const std::string about = text(onnxruntime->version, "\n", threads);
  const std::optional<Json> record =
      read_record(record_file("speed", kSpeedMeasurement, bundle, path, openvino, about));
  if (!record) return onnxruntime;
  try {
    return record->at("openvino_over_onnxruntime").get<double>() > 1 ? onnxruntime : nullptr;
  } catch (const Json::exception&) {  // damaged
    return onnxruntime;
  }
}

}  // namespace dovit::runtime
