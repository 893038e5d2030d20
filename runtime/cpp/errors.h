// The errors inside the library: each carries one sentence that says what is wrong and how to mend it. They end at the
// C boundary, where they become a status and dovit_last_error().
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace dovit::runtime {

// Something failed.
struct DovitError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The request itself cannot be right: a wrong argument.
struct UsageError : DovitError {
  using DovitError::DovitError;
};

// The request is right, and this build or backend cannot do it.
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
