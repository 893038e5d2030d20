#include "tensorrt/logger.h"

namespace dovit::runtime {

void LastError::log(int32_t severity, const char* message) noexcept {
  constexpr int32_t kError = 1;  // and 0, an internal one
  if (severity > kError || !message) return;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    text_ = std::string(message).substr(0, 300);
  } catch (...) {  // no memory for the reason
  }
}

std::string LastError::text() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return text_.empty() ? "it does not say why" : text_;
}

}  // namespace dovit::runtime
