// What computes one image at a time: a program with its stream, its pinned memory and its modes.
#pragma once

#include "gpu/modes.h"
#include "gpu/resizing.h"

namespace dovit::runtime {

class Runner {
 public:
  // Warms up and captures. `graph`: the whole image as one CUDA graph, or one a segment; none: the former where the
  // device can and every plan can be part of it, else the latter, and a line on standard error says why. Throws
  // DovitError.
  Runner(const Plans& plans, std::optional<bool> graph);

  size_t device_bytes() const { return program_.bytes(); }

  // Reserves memory for frames of this size. Throws DovitError where they do not fit.
  void prepare(const Frame& frame);

  // One pass over a frame that it is prepared for, to its end. The caller has made the device current. Not for two
  // threads at a time. Throws DovitError.
  Pass run(const Frame& frame, const Request& request);

 private:
  bool resizes(const Frame& frame) const { return !(frame.size == size_); }
  const CapturedMode& captured(PixelSource source);
  void write_device_labels(const Tensor& labels, const Frame& frame) const;
  Tensor read_logits() const;

  const Plans& plans_;
  bool graph_;
  const Size size_;      // the bundle's
  const Stream stream_;  // before all that is queued on it
  const LoadedProgram program_;
  const Transfers transfers_;
  const ExactMode exact_;
  ImageResizer resizer_;
  ResizedLabels resized_labels_;
  std::set<SegmentKey> uncapturable_;
  std::unique_ptr<CapturedMode> from_pinned_, from_device_;  // the latter when a frame first lies there
};

}  // namespace dovit::runtime
