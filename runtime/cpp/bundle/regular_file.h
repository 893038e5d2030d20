// Reads regular files only: opening a pipe blocks until something writes to it, and a device may have no end.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

#include "non_copyable.h"

namespace dovit::runtime {

// Opening or reading failed, or it is no regular file: `error` is an errno, what() its message.
struct FileError : std::runtime_error {
  FileError(int error, const std::string& why) : std::runtime_error(why), error(error) {}
  const int error;
};

class RegularFile : NonCopyable {
 public:
  // Opens a file for reading, without waiting. Throws FileError, also for a folder, pipe, device or socket.
  explicit RegularFile(const std::filesystem::path& path);
  ~RegularFile();

  // The next bytes, at most `size`; 0 at the end. Throws FileError.
  size_t read(char* to, size_t size) const;

  // All that is left. Throws FileError where that is more than `most` bytes.
  std::string content(size_t most) const;

 private:
  int descriptor_ = -1;
};

}  // namespace dovit::runtime
