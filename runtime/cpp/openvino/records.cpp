#include "openvino/records.h"

#include <fstream>
#include <set>

#include "bundle/read.h"
#include "bundle/regular_file.h"
#include "bundle/sha256.h"
#include "cache_folder.h"
#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr size_t kMaxBytes = size_t{64} << 20;

// How the lines of /proc/cpuinfo begin that name a processor and its instructions: on x86, and on Arm.
constexpr const char* kProcessor[] = {"model name", "flags", "CPU implementer", "CPU variant", "CPU part", "Features"};

}  // namespace

std::string processor(const std::string& cpuinfo) {
  std::ifstream file(cpuinfo);
  std::set<std::string> lines;
  for (std::string line; std::getline(file, line);)
    for (const char* beginning : kProcessor)
      if (line.rfind(beginning, 0) == 0) lines.insert(line);
  std::string joined;
  for (const std::string& line : lines) joined += (joined.empty() ? "" : "\n") + line;
  return joined;
}

std::optional<std::filesystem::path> record_file(const std::string& kind, int measurement, const Bundle& bundle,
                                                 const std::string& path, const OpenVino& openvino,
                                                 const std::string& about) {
  const std::optional<std::filesystem::path> folder = cache_folder("openvino");
  if (!folder) return std::nullopt;
  std::string manifest;
  try {
    manifest = sha256(RegularFile(manifest_file(bundle.root)).content(kMaxBytes));
  } catch (const FileError& error) {
    throw DovitError(text(path, ": the manifest cannot be read: ", error.what()));
  }
  std::string parts = text(measurement, "\n", manifest, "\n", openvino.build(), "\n", processor());
  if (!about.empty()) parts += "\n" + about;
  return *folder / (kind + "-" + sha256(parts).substr(0, 32) + ".json");
}

std::optional<Json> read_record(const std::optional<std::filesystem::path>& file) {
  if (!file) return std::nullopt;
  try {
    return Json::parse(RegularFile(*file).content(kMaxBytes));
  } catch (const FileError&) {
    return std::nullopt;
  } catch (const Json::exception&) {  // damaged
    return std::nullopt;
  }
}

}  // namespace dovit::runtime
