// Copies of inputs to the device and of results back to the host, through pinned memory: one copy each way.
#pragma once

#include "chain/executor.h"
#include "gpu/program.h"

namespace dovit::runtime {

class Transfers {
 public:
  explicit Transfers(const LoadedProgram& program);

  // Fill the host's side: pixels [H, W, 3] uint8, one ξ a decision.
  void write(const uint8_t* pixels) const;
  void write(const std::vector<double>& thresholds) const;

  // Queue the copies to the device, and back.
  void enqueue_image(CUstream stream) const;
  void enqueue_thresholds(CUstream stream) const;
  void enqueue_results(CUstream stream) const;

  // The decisions that came back, once the stream has got there; and the labels, of the bundle's size.
  Pass read() const;
  Tensor labels() const;

 private:
  template <class T>
  std::vector<T> values(const std::string& name, int64_t count) const;

  const LoadedProgram& program_;
  const PinnedBuffer image_, thresholds_, results_;
};

}  // namespace dovit::runtime
