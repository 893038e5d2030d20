// Checks that print what was expected and continue; a program's exit status is the number of failures, up to 100.
#pragma once

#include <algorithm>
#include <cstdio>
#include <sstream>
#include <string>

inline int failures = 0;

template <class Value>
std::string shown(const Value& value) {
  std::ostringstream text;
  text << std::boolalpha << value;
  return text.str();
}

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      ++failures;                                                     \
      std::printf("%s:%d: not %s\n", __FILE__, __LINE__, #condition); \
    }                                                                 \
  } while (false)

#define CHECK_EQUAL(found, expected)                                                                       \
  do {                                                                                                     \
    if (!((found) == (expected))) {                                                                        \
      ++failures;                                                                                          \
      std::printf("%s:%d: %s is\n  %s\nand not\n  %s\n", __FILE__, __LINE__, #found, shown(found).c_str(), \
                  shown(expected).c_str());                                                                \
    }                                                                                                      \
  } while (false)

inline int verdict() {
  if (failures == 0) std::printf("all checks passed\n");
  return std::min(failures, 100);
}
