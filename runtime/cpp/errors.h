// The errors inside the library: each carries one sentence that says what is wrong and how to fix it. They end at the
// C boundary, where they become a status and dovit_last_error().
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace dovit::runtime {

// `sentence` on one line and without terminal codes: control characters, which names in files may have, as \xNN.
inline std::string printable(const std::string& sentence) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string line;
  for (const char letter : sentence) {
    const auto code = static_cast<unsigned char>(letter);
    if (code < 0x20 || code == 0x7f)
      line += {'\\', 'x', kDigits[code >> 4], kDigits[code & 15]};
    else
      line += letter;
  }
  return line;
}

// Something failed.
struct DovitError : std::runtime_error {
  explicit DovitError(const std::string& sentence) : std::runtime_error(printable(sentence)) {}
};

// The request is invalid: a wrong argument.
struct UsageError : DovitError {
  using DovitError::DovitError;
};

// The request is valid, but this build or backend cannot do it.
struct Unsupported : DovitError {
  using DovitError::DovitError;
};

// The parts of a sentence, one after the other.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// The items of a list, as a sentence has them.
template <class List, class Name>
std::string joined(const List& list, const Name& name) {
  std::string all;
  for (const auto& item : list) all += text(all.empty() ? "" : ", ", name(item));
  return all;
}

template <class List>
std::string joined(const List& list) {
  return joined(list, [](const auto& item) { return item; });
}

}  // namespace dovit::runtime
