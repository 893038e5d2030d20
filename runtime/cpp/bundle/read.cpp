#include "bundle/read.h"

#include <cerrno>

#include "bundle/json_fields.h"
#include "bundle/regular_file.h"

namespace dovit::runtime {

namespace {

[[noreturn]] void not_a_manifest(const std::string& file, const std::string& why) {
  throw DovitError(text(file, ": not a dovit manifest (", why, "); export the bundle again"));
}

constexpr size_t kMaxManifestBytes = size_t{64} << 20;
constexpr int kMaxJsonDepth = 100;  // a manifest has less than ten

}  // namespace

bool nested_too_deeply(const std::string& content) {
  int depth = 0;
  bool inside = false;  // a string
  for (size_t k = 0; k < content.size(); ++k) {
    const char letter = content[k];
    if (inside && letter == '\\') {
      ++k;
    } else if (letter == '"') {
      inside = !inside;
    } else if (!inside && (letter == '[' || letter == '{')) {
      if (++depth > kMaxJsonDepth) return true;
    } else if (!inside && (letter == ']' || letter == '}')) {
      --depth;
    }
  }
  return false;
}

Manifest parse_manifest(const std::string& content, const std::string& file) {
  // what this parser lets pass, and Python's does not
  if (content.rfind("\xef\xbb\xbf", 0) == 0) not_a_manifest(file, "it begins with a byte-order mark");
  if (content.find('\0') != std::string::npos) not_a_manifest(file, "it holds a zero byte");
  if (nested_too_deeply(content)) not_a_manifest(file, "nested too deeply");
  Json json;
  try {
    json = Json::parse(content);
  } catch (const Json::parse_error& error) {
    not_a_manifest(file, text("broken JSON at byte ", error.byte));
  } catch (const Json::exception&) {  // a number that no double holds
    not_a_manifest(file, "a number out of range");
  }
  if (!json.is_object()) not_a_manifest(file, "no JSON object");
  const auto version = json.find("schema_version");
  if (version == json.end()) not_a_manifest(file, "'schema_version'");
  if (!version->is_number_integer()) not_a_manifest(file, "schema_version is not a number");
  Manifest manifest;
  try {
    read(*version, manifest.schema_version, Where{nullptr, "schema_version"});
    if (manifest.schema_version > kSchemaVersion)
      throw DovitError(text(file, ": schema version ", manifest.schema_version, " is newer than this dovit reads (",
                            kSchemaVersion, "); upgrade dovit"));
    read(json, manifest, Where{});
  } catch (const FieldError& error) {
    throw DovitError(text(file, ": ", error.sentence("export the bundle again")));
  }
  return manifest;
}

std::filesystem::path manifest_file(const std::filesystem::path& root) {
  return root == "." ? kManifestName : root / kManifestName;  // as pathlib prints it
}

Manifest read_manifest(const std::filesystem::path& root) {
  const std::filesystem::path file = manifest_file(root);
  std::string content;
  try {
    content = RegularFile(file).content(kMaxManifestBytes);
  } catch (const FileError& error) {
    std::error_code ignored;
    // bundle.json itself, or a checkpoint
    if (error.error == ENOTDIR && std::filesystem::is_regular_file(root, ignored))
      throw DovitError(text(root.string(), ": a file; a bundle is the folder in which ", kManifestName,
                            " lies (dovit-export --ckpt makes one of a checkpoint)"));
    if (error.error == ENOENT || error.error == ENOTDIR)
      throw DovitError(text(root.string(), ": not a dovit bundle (no ", kManifestName,
                            "); make one with dovit-export --ckpt model.pth --out ", root.string()));
    throw DovitError(text(file.string(), ": cannot be read: ", error.what()));
  }
  return parse_manifest(content, file.string());
}

}  // namespace dovit::runtime
