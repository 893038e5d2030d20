// nvinfer1::ILogger, which TensorRT calls: its functions in its order, which TensorRT 11 has changed.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

namespace dovit::runtime {

// The last error that was logged. Nothing is printed.
class LastError {
 public:
  void log(int32_t severity, const char* message) noexcept;
  std::string text() const;

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

// TensorRT 10's.
class OldLogger {
 public:
  explicit OldLogger(LastError& last) : last_(last) {}
  virtual void log(int32_t severity, const char* message) noexcept { last_.log(severity, message); }
  virtual ~OldLogger() = default;

 private:
  LastError& last_;
};

// TensorRT 11's and TensorRT-RTX's: an interface with a version.
class NewLogger {
 public:
  struct InterfaceInfo {
    const char* kind;
    int32_t major, minor;
  };

  explicit NewLogger(LastError& last) : last_(last) {}
  virtual int32_t api_language() const noexcept { return 0; }  // C++
  virtual InterfaceInfo interface_info() const noexcept { return {"ILogger", 1, 0}; }
  virtual ~NewLogger() = default;
  virtual void log(int32_t severity, const char* message) noexcept { last_.log(severity, message); }

 private:
  LastError& last_;
};

}  // namespace dovit::runtime
