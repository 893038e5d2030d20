#include "bundle/read.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "bundle/json_fields.h"

namespace dovit::runtime {

namespace {

[[noreturn]] void not_a_manifest(const std::string& file, const std::string& why) {
  throw DovitError(text(file, ": not a dovit manifest (", why, "); export the bundle again"));
}

// The whole file, or false with errno set.
bool read_whole(const std::filesystem::path& file, std::string& content) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> stream(std::fopen(file.c_str(), "rb"), &std::fclose);
  if (!stream) return false;
  char block[1 << 16];
  while (const size_t count = std::fread(block, 1, sizeof block, stream.get())) content.append(block, count);
  return !std::ferror(stream.get());
}

}  // namespace

Manifest parse_manifest(const std::string& content, const std::string& file) {
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
  if (!version->is_number_integer() && !version->is_boolean()) not_a_manifest(file, "schema_version is not a number");
  Manifest manifest;
  try {
    read(*version, manifest.schema_version, Where{nullptr, "schema_version"});
    if (manifest.schema_version > kSchemaVersion)
      throw DovitError(text(file, ": schema version ", manifest.schema_version, " is newer than this dovit reads (",
                            kSchemaVersion, "); upgrade dovit"));
    read(json, manifest, Where{});
  } catch (const FieldError& error) {
    throw DovitError(text(file, ": the field ", error.where, " is wrong (", error.why, "); export the bundle again"));
  }
  return manifest;
}

std::filesystem::path manifest_file(const std::filesystem::path& root) {
  return root == "." ? kManifestName : root / kManifestName;  // as pathlib prints it
}

Manifest read_manifest(const std::filesystem::path& root) {
  const std::filesystem::path file = manifest_file(root);
  std::string content;
  if (!read_whole(file, content)) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR)
      throw DovitError(text(root.string(), ": not a dovit bundle (no ", kManifestName,
                            "); make one with dovit-export --ckpt model.pth --out ", root.string()));
    throw DovitError(text(file.string(), ": cannot be read: ", std::strerror(error)));
  }
  return parse_manifest(content, file.string());
}

}  // namespace dovit::runtime
