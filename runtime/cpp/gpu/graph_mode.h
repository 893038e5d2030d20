// The whole image as one CUDA graph: one launch, and the host hears nothing before the result is there.
//
//     stem, decide 1 ─▶ SWITCH 1 ─▶ SWITCH 2 ─▶ … ─▶ decoder
//                       │ a body for each capacity: gather, block 2 at that size, decide 2 (sets SWITCH 2)
//
// A switch whose decision was not made, for no token was left, finds the number that it began with, which is no body's.
#pragma once

#include "gpu/captured_mode.h"
#include "gpu/graph.h"

namespace dovit::runtime {

class GraphMode : public CapturedMode {
 public:
  // Captures. Throws DovitError where the device cannot, or where a plan cannot be part of a graph.
  GraphMode(const Program& program, const Transfers& transfers, const Stream& stream, PixelSource source);

  void launch() const override { graph_.launch(stream_.get()); }

 private:
  void capture_body(CUgraph body, size_t number, int64_t kept, CUgraphConditionalHandle next) const;

  const Program& program_;
  const Stream& stream_;
  Graph graph_;
};

}  // namespace dovit::runtime
