// The manifest's text → Manifest, with the sentences of runtime/bundle/open.py.
#pragma once

#include <filesystem>
#include <string>

#include "bundle/manifest.h"

namespace dovit::runtime {

// Where the manifest of the folder `root` lies.
std::filesystem::path manifest_file(const std::filesystem::path& root);

// The manifest of the folder `root`, its schema checked, its files not. Throws DovitError.
Manifest read_manifest(const std::filesystem::path& root);

// Whether JSON is nested deeper than a manifest ever is. Checked before parsing, which allocates for every level.
bool nested_too_deeply(const std::string& content);

// The manifest in `content`; `file` is what it is called in sentences.
Manifest parse_manifest(const std::string& content, const std::string& file);

}  // namespace dovit::runtime
