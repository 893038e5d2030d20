// What gives something back when it goes, and so must stand for it alone.
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
