#include "api/boundary.h"

#include <cstring>

namespace dovit::runtime {

namespace {

thread_local char t_last_error[2048] = "";  // no std::string: telling of an error must not need memory

}  // namespace

const char* last_error() noexcept { return t_last_error; }

void set_last_error(const char* sentence) noexcept {
  size_t size = std::strlen(sentence);
  if (size >= sizeof t_last_error) {
    size = sizeof t_last_error - 1;
    while (size > 0 && (static_cast<unsigned char>(sentence[size]) & 0xc0) == 0x80) --size;  // no half UTF-8 letter
  }
  std::memcpy(t_last_error, sentence, size);
  t_last_error[size] = '\0';
}

}  // namespace dovit::runtime
