// Opening a bundle: nothing in it is used before its schema, paths, sizes and hashes are checked.
#pragma once

#include <filesystem>
#include <string>

#include "bundle/manifest.h"

namespace dovit::runtime {

// A bundle whose files are what its manifest says.
struct Bundle {
  std::filesystem::path root;
  Manifest manifest;
};

// Reads and checks the bundle in the folder `path`. Throws DovitError with what disagrees and how to mend it.
Bundle open_bundle(const std::string& path);

}  // namespace dovit::runtime
