#include "openvino/accuracy.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>

#include "bundle/json_fields.h"
#include "bundle/read.h"
#include "bundle/regular_file.h"
#include "bundle/sha256.h"
#include "errors.h"

namespace dovit::runtime {

namespace {

// As in runtime/openvino/accuracy.py, which measures, names the file and writes it.
constexpr double kMinLabelsEqual = 0.97;
constexpr double kMinSameFate = 0.95;
constexpr double kMaxMiouLoss = 0.01;
constexpr int kMeasurement = 2;
constexpr size_t kMaxBytes = size_t{64} << 20;

struct Bf16Accuracy {
  double labels_equal = 0, same_fate = 0, miou_loss = 0;
};

// $XDG_CACHE_HOME/dovit/openvino
std::filesystem::path cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path base =
      cache && *cache ? std::filesystem::path(cache) : std::filesystem::path(home ? home : "/") / ".cache";
  return base / "dovit" / "openvino";
}

// What the system says of the processor: its name and instructions.
std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> lines;
  for (std::string line; std::getline(file, line);)
    if (line.rfind("model name", 0) == 0 || line.rfind("flags", 0) == 0) lines.insert(line);
  std::string joined;
  for (const std::string& line : lines) joined += (joined.empty() ? "" : "\n") + line;
  return joined;
}

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

std::optional<Bf16Accuracy> kept_accuracy(const std::filesystem::path& file) {
  try {
    const Json json = Json::parse(RegularFile(file).content(kMaxBytes));
    return Bf16Accuracy{json.at("labels_equal").get<double>(), json.at("same_fate").get<double>(),
                        json.at("miou_loss").get<double>()};
  } catch (const FileError&) {
    return std::nullopt;
  } catch (const Json::exception&) {  // damaged
    return std::nullopt;
  }
}

}  // namespace

void check_bf16_accuracy(const Bundle& bundle, const std::string& path, const OpenVino& openvino) {
  std::string manifest;
  try {
    manifest = sha256(RegularFile(manifest_file(bundle.root)).content(kMaxBytes));
  } catch (const FileError& error) {
    throw DovitError(text(path, ": the manifest cannot be read: ", error.what()));
  }
  const std::string about = text(kMeasurement, "\n", manifest, "\n", openvino.build(), "\n", processor());
  const std::filesystem::path file = cache_folder() / ("bf16-" + sha256(about).substr(0, 32) + ".json");
  const std::optional<Bf16Accuracy> found = kept_accuracy(file);
  if (!found)
    throw DovitError(text(path, ": bf16 has not been compared with float32 for this bundle on this CPU with OpenVINO ",
                          openvino.build(), " (there is no ", file.string(),
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
