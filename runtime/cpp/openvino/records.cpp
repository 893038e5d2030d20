#include "openvino/records.h"

#include <cstdlib>
#include <fstream>
#include <set>

#include "bundle/read.h"
#include "bundle/regular_file.h"
#include "bundle/sha256.h"
#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr size_t kMaxBytes = size_t{64} << 20;

// $XDG_CACHE_HOME/dovit/openvino
std::filesystem::path cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path base =
      cache && *cache ? std::filesystem::path(cache) : std::filesystem::path(home && *home ? home : "/") / ".cache";
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

}  // namespace

std::filesystem::path record_file(const std::string& kind, int measurement, const Bundle& bundle,
                                  const std::string& path, const OpenVino& openvino, const std::string& about) {
  std::string manifest;
  try {
    manifest = sha256(RegularFile(manifest_file(bundle.root)).content(kMaxBytes));
  } catch (const FileError& error) {
    throw DovitError(text(path, ": the manifest cannot be read: ", error.what()));
  }
  std::string parts = text(measurement, "\n", manifest, "\n", openvino.build(), "\n", processor());
  if (!about.empty()) parts += "\n" + about;
  return cache_folder() / (kind + "-" + sha256(parts).substr(0, 32) + ".json");
}

std::optional<Json> read_record(const std::filesystem::path& file) {
  try {
    return Json::parse(RegularFile(file).content(kMaxBytes));
  } catch (const FileError&) {
    return std::nullopt;
  } catch (const Json::exception&) {  // damaged
    return std::nullopt;
  }
}

}  // namespace dovit::runtime
