// Base class for RAII owners, which are neither copied nor moved: their destructor releases what they hold, once.
#pragma once

namespace dovit::runtime {

class NonCopyable {
 public:
  NonCopyable(const NonCopyable&) = delete;
  NonCopyable& operator=(const NonCopyable&) = delete;

 protected:
  NonCopyable() = default;
  ~NonCopyable() = default;
};

}  // namespace dovit::runtime
