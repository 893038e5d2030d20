#include "bundle/regular_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "errors.h"

namespace dovit::runtime {

namespace {

[[noreturn]] void fail(int error) { throw FileError(error, std::strerror(error)); }

}  // namespace

RegularFile::RegularFile(const std::filesystem::path& path)
    : descriptor_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
  if (descriptor_ < 0) fail(errno);
  struct stat found{};
  if (::fstat(descriptor_, &found) == 0 && S_ISREG(found.st_mode)) return;
  ::close(descriptor_);
  if (S_ISDIR(found.st_mode)) throw FileError(EISDIR, "a folder, not a file");
  throw FileError(EINVAL, "a pipe or device, not a regular file");
}

RegularFile::~RegularFile() { ::close(descriptor_); }

size_t RegularFile::read(char* to, size_t size) const {
  for (;;) {
    const ssize_t count = ::read(descriptor_, to, size);
    if (count >= 0) return static_cast<size_t>(count);
    if (errno != EINTR) fail(errno);
  }
}

std::string RegularFile::content(size_t most) const {
  std::string all;
  char block[1 << 16];
  while (const size_t count = read(block, sizeof block)) {
    all.append(block, count);
    if (all.size() > most) throw FileError(EFBIG, text("larger than ", most >> 20, " MiB"));
  }
  return all;
}

}  // namespace dovit::runtime
