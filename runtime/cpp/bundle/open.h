// Opening a bundle: nothing in it is used before its schema, paths, sizes and hashes are checked.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>

#include "bundle/manifest.h"
#include "errors.h"

namespace dovit::runtime {

// A bundle whose files are what its manifest says.
struct Bundle {
  std::filesystem::path root;
  Manifest manifest;
};

// Reads and checks the bundle in the folder `path`, once. Throws DovitError with what disagrees and how to fix it.
Bundle read_bundle(const std::string& path);

// Identity of the manifest's file at present; none where there is none.
using ManifestIdentity = std::array<int64_t, 7>;
std::optional<ManifestIdentity> manifest_identity(const std::string& path);

// Opens the bundle in the folder `path` and returns use(bundle). An export may replace the bundle meanwhile and remove
// its old files, so if anything fails and the manifest has changed since it was read, the new bundle is opened instead.
// Throws DovitError as read_bundle and `use` do.
template <class Use>
auto with_bundle(const std::string& path, const Use& use) {
  constexpr int kMaxAttempts = 20;  // an export takes seconds, so a second attempt hardly ever meets another export
  for (int attempt = 1;; ++attempt) {
    const std::optional<ManifestIdentity> before = manifest_identity(path);
    try {
      return use(read_bundle(path));
    } catch (const DovitError&) {
      if (attempt == kMaxAttempts || manifest_identity(path) == before) throw;
    }
  }
}

// with_bundle's bundle itself.
Bundle open_bundle(const std::string& path);

}  // namespace dovit::runtime
