// Base class for RAII owners, which are neither copied nor moved: their destructor releases what they hold, once.
#pragma once

namespace dovit::runtime {

class NotCopied {
 public:
  NotCopied(const NotCopied&) = delete;
  NotCopied& operator=(const NotCopied&) = delete;

 protected:
  NotCopied() = default;
  ~NotCopied() = default;
};

}  // namespace dovit::runtime
