#pragma once

#include <filesystem>
#include <string>

namespace dovit::runtime {

// The hash of a file's content, in hexadecimal. Throws DovitError where it cannot be read.
std::string sha256(const std::filesystem::path& file);

}  // namespace dovit::runtime
