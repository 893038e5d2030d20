#include "bundle/open.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "bundle/check.h"
#include "bundle/external.h"
#include "bundle/read.h"
#include "bundle/sha256.h"
#include "errors.h"

namespace fs = std::filesystem;

namespace dovit::runtime {

namespace {

constexpr size_t kMaxOnnxBytes = size_t{2} << 30;  // protobuf's own limit

// The path without empty parts and dots, as Python's pathlib writes it: sentences are the same in both languages.
fs::path plain(const std::string& path) {
  fs::path out = !path.empty() && path[0] == '/' ? "/" : "";
  for (const fs::path& part : fs::path(path).relative_path())
    if (!part.empty() && part != ".") out /= part;
  return out.empty() ? "." : out;
}

// A name as Python's repr quotes it, so that it cannot be mistaken for the rest of the message.
std::string quoted(const std::string& name) {
  const char quote = name.find('\'') != std::string::npos && name.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char letter : name) {
    const auto code = static_cast<unsigned char>(letter);
    if (letter == quote || letter == '\\') {
      out += '\\';
      out += letter;
    } else if (letter == '\n' || letter == '\r' || letter == '\t') {
      out += letter == '\n' ? "\\n" : letter == '\r' ? "\\r" : "\\t";
    } else if (code < 0x20 || code == 0x7f) {
      out += "\\x";
      out += "0123456789abcdef"[code >> 4];
      out += "0123456789abcdef"[code & 15];
    } else {
      out += letter;
    }
  }
  return out + quote;
}

bool lies_inside(const fs::path& inner, const fs::path& outer) {
  const auto [first, rest] = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
  (void)rest;
  return first == outer.end() || (first->empty() && std::next(first) == outer.end());
}

void check_path(const fs::path& root, const std::string& name) {
  std::error_code error;
  bool parts = false, up = false;
  for (const fs::path& part : fs::path(name)) {
    parts = parts || (!part.empty() && part != ".");
    up = up || part == "..";
  }
  bool leaves = !parts || up || name[0] == '/' || name.find('\\') != std::string::npos;
  leaves = leaves || name.find('\0') != std::string::npos;  // the system would see a shorter name than was checked
  if (!leaves) {
    const fs::path inner = fs::weakly_canonical(root / name, error);
    const fs::path outer = error ? fs::path() : fs::weakly_canonical(root, error);
    leaves = error || !lies_inside(inner, outer);
  }
  if (leaves)
    throw DovitError(text(root.string(), ": the manifest names ", quoted(name),
                          ", which leaves the bundle; do not use this bundle"));
}

// Compares a file with its entry; its content where `whole` is wanted.
std::string check_file(const fs::path& root, const std::string& name, const FileEntry& entry, bool whole) {
  const fs::path file = root / name;
  std::error_code error;
  if (!fs::is_regular_file(file, error))
    throw DovitError(text(root.string(), ": the bundle's file ", name, " is missing; export the bundle again"));
  const auto size = static_cast<int64_t>(fs::file_size(file, error));
  if (error || size != entry.size)
    throw DovitError(
        text(root.string(), ": ", name, " has ", size, " bytes, the manifest says ", entry.size, "; export again"));
  std::string content, found;
  try {
    const RegularFile open(file);
    if (whole) content = open.content(kMaxOnnxBytes);
    found = whole ? sha256(content) : sha256(open);
  } catch (const FileError& failure) {
    if (failure.error == ENOENT)
      throw DovitError(text(root.string(), ": the bundle's file ", name, " is missing; export the bundle again"));
    throw DovitError(text(root.string(), ": ", name, " cannot be read: ", failure.what()));
  }
  if (found != entry.sha256)
    throw DovitError(
        text(root.string(), ": ", name, " is not the file that was exported (its SHA-256 differs); export again"));
  return content;
}

// The files, as the manifest lists them, from which the ONNX file `name` takes its weights: all lie beside it.
std::vector<std::string> weights_of(const fs::path& root, const std::string& name, const std::string& content) {
  std::vector<std::string> files;
  try {
    for (const std::string& location : external_files(content)) {
      if (location.empty() || location == "." || location == ".." || location.find_first_of("/\\") != std::string::npos)
        throw DovitError(text(root.string(), ": ", name, " takes weights from ", quoted(location),
                              ", which is not a file beside it; do not use this bundle"));
      files.push_back(plain((fs::path(name).parent_path() / location).string()).string());
    }
  } catch (const NotOnnx& error) {
    throw DovitError(
        text(root.string(), ": ", name, " is not an ONNX file (", error.what(), "); export the bundle again"));
  }
  return files;
}

}  // namespace

Bundle read_bundle(const std::string& path) {
  const fs::path root = plain(path);
  Bundle bundle{root, read_manifest(root)};
  std::vector<std::pair<std::string, std::string>> used;  // by what, file
  std::map<std::string, std::string> steps;               // ONNX file, step
  for (const Step& step : bundle.manifest.steps) {
    std::vector<std::string> files = step.openvino;
    if (step.onnx) files.push_back(*step.onnx);
    for (const std::string& file : files) {
      used.emplace_back("step " + step.name, file);
      steps[file] = step.name;
    }
  }
  for (const PlanSet& plans : bundle.manifest.plans)
    for (const PlanStep& step : plans.steps)
      if (step.plan) used.emplace_back("step " + step.name, step.plan->file);
  for (const PlanSet& plans : bundle.manifest.plans)
    if (plans.program) used.emplace_back("plan set " + plans.name(), *plans.program);
  std::set<std::string> listed;
  for (const auto& [name, entry] : bundle.manifest.files) {
    check_path(root, name);
    const auto step = steps.find(name);
    const std::string content = check_file(root, name, entry, step != steps.end());
    if (step != steps.end())
      for (std::string& file : weights_of(root, name, content))
        used.emplace_back("step " + step->second, std::move(file));
    listed.insert(name);
  }
  for (const auto& [user, name] : used)
    if (!listed.count(name))
      throw DovitError(
          text(root.string(), ": ", user, " uses ", name,
               ", which the manifest does not list, so nothing says what is in it; export the bundle again"));
  check_manifest(bundle.manifest, manifest_file(root).string());
  return bundle;
}

std::optional<ManifestIdentity> manifest_identity(const std::string& path) {
  struct stat found{};
  if (::stat(manifest_file(plain(path)).c_str(), &found)) return std::nullopt;
  return ManifestIdentity{static_cast<int64_t>(found.st_dev),
                          static_cast<int64_t>(found.st_ino),
                          static_cast<int64_t>(found.st_size),
                          found.st_mtim.tv_sec,
                          found.st_mtim.tv_nsec,
                          found.st_ctim.tv_sec,
                          found.st_ctim.tv_nsec};
}

Bundle open_bundle(const std::string& path) {
  return with_bundle(path, [](Bundle bundle) { return bundle; });
}

}  // namespace dovit::runtime
