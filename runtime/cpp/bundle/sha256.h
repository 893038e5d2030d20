#pragma once

#include <string>
#include <string_view>

#include "bundle/regular_file.h"

namespace dovit::runtime {

// The hash of bytes, or of a file's content, in hexadecimal. Throws DovitError, FileError where the file cannot be
// read.
std::string sha256(std::string_view bytes);
std::string sha256(const RegularFile& file);

}  // namespace dovit::runtime
