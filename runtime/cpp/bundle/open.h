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

// Reads and checks the bundle in the folder `path`, once. Throws DovitError with what disagrees and how to mend it.
Bundle read_bundle(const std::string& path);

// Of the file that is the manifest now; none where there is none.
using ManifestIdentity = std::array<int64_t, 7>;
std::optional<ManifestIdentity> manifest_identity(const std::string& path);

// What `use` makes of the bundle in the folder `path`. An export may put another in its place meanwhile, and take the
// files of this one away: so where something fails and the manifest is no longer the one that was read, all begins
// anew. Throws DovitError as read_bundle and `use` do.
template <class Use>
auto with_bundle(const std::string& path, const Use& use) {
  constexpr int kMaxAttempts = 20;  // an export takes seconds, so a second attempt meets another one hardly ever
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
