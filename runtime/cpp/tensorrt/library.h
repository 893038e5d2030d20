// TensorRT or TensorRT-RTX, opened at run time: it deserializes plans, and keeps what it said.
#pragma once

#include <memory>
#include <string>

#include "tensorrt/logger.h"
#include "tensorrt/slots.h"

namespace dovit::runtime {

// Deletes what TensorRT handed out.
struct Deleter {
  void operator()(Handed* object) const { call<void>(object, kDelete); }
};
using Owned = std::unique_ptr<Handed, Deleter>;

class TensorRt {
 public:
  // `flavour`: tensorrt or tensorrt-rtx; `path` of its library, empty: where the system finds that of `version`. Throws
  // DovitError.
  TensorRt(const std::string& flavour, const std::string& path, const std::string& version);

  const std::string& title() const { return title_; }      // as in sentences
  const std::string& version() const { return version_; }  // such as 10.14.1.48
  const Slots& slots() const { return *slots_; }

  // From now on plans can be taken. Apart, for it needs a GPU, and the version does not. Throws DovitError.
  void start();

  // A plan's engine; the caller has checked its hash: a plan is code. Throws DovitError. `file` is for sentences.
  Owned deserialize(const std::string& plan, const std::string& file) const;

  // The last error that it logged.
  std::string reason() const;

 private:
  const std::string title_;
  std::string version_;
  int number_ = 0;
  const Slots* slots_ = nullptr;
  void* (*create_runtime_)(const void* logger, int32_t version) = nullptr;
  LastError last_error_;
  const OldLogger old_logger_{last_error_};
  const NewLogger new_logger_{last_error_};
  Owned runtime_;
};

}  // namespace dovit::runtime
