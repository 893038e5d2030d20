#include "openvino/accuracy.h"

#include <cstdio>

#include "errors.h"
#include "openvino/records.h"

namespace dovit::runtime {

namespace {

// As in runtime/openvino/accuracy.py, which measures, names the file and writes it.
constexpr double kMinLabelsEqual = 0.97;
constexpr double kMinSameFate = 0.95;
constexpr double kMaxMiouLoss = 0.01;
constexpr int kAccuracyMeasurement = 2;

struct Bf16Accuracy {
  double labels_equal = 0, same_fate = 0, miou_loss = 0;
};

std::string percent(double share) {
  char written[32];
  std::snprintf(written, sizeof written, "%.1f%%", 100 * share);
  return written;
}

std::string points(double share) {
  char written[32];
  std::snprintf(written, sizeof written, "%.2f", 100 * share);
  return written;
}

std::optional<Bf16Accuracy> kept_accuracy(const std::optional<std::filesystem::path>& file) {
  const std::optional<Json> json = read_record(file);
  if (!json) return std::nullopt;
  try {
    return Bf16Accuracy{json->at("labels_equal").get<double>(), json->at("same_fate").get<double>(),
                        json->at("miou_loss").get<double>()};
  } catch (const Json::exception&) {  // damaged
    return std::nullopt;
  }
}

}  // namespace

void check_bf16_accuracy(const Bundle& bundle, const std::string& path, const OpenVino& openvino) {
  const std::optional<std::filesystem::path> file = record_file("bf16", kAccuracyMeasurement, bundle, path, openvino);
  if (!file)
    throw DovitError(text(path,
                          ": bf16 needs the record of what it costs this bundle on this CPU, and the user has no ",
                          "home where it would be: set XDG_CACHE_HOME to the cache folder of who loads the bundle in ",
                          "Python (~/.cache there), or set skip_accuracy_check to have it all the same"));
  const std::optional<Bf16Accuracy> found = kept_accuracy(file);
  if (!found)
    throw DovitError(text(path, ": bf16 has not been compared with float32 for this bundle on this CPU with OpenVINO ",
                          openvino.build(), " (there is no ", file->string(),
                          "): load it once in Python, dovit.load(path, provider=\"openvino\", precision=\"bf16\"), or "
                          "set skip_accuracy_check to have it all the same"));
  const bool shares = found->labels_equal >= kMinLabelsEqual && found->same_fate >= kMinSameFate;
  if (!shares || found->miou_loss > kMaxMiouLoss)
    throw DovitError(text(path, ": bf16 is too far from float32 for this model: ", percent(found->labels_equal),
                          " of the labels are equal (at least ", percent(kMinLabelsEqual), "), ",
                          percent(found->same_fate), " of the tokens stop at the same decision (at least ",
                          percent(kMinSameFate), "), and mIoU is ", points(found->miou_loss), " points lower (at most ",
                          points(kMaxMiouLoss),
                          "): use precision fp32, or set skip_accuracy_check to have it all the same"));
}

}  // namespace dovit::runtime
