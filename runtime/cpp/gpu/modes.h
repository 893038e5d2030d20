// The ways to launch a program: as one CUDA graph, as a graph a segment, and kernel by kernel.
#pragma once

#include "gpu/graph.h"
#include "gpu/transfers.h"
#include "gpu/trial.h"

namespace dovit::runtime {

// Where a pass finds its pixels: in pinned memory, from where it uploads them, or on the device already.
enum class PixelSource { kPinned, kDevice };

// A program captured once, for the bundle's capacities. ξ is read from the device, so it may differ every time.
class CapturedMode {
 public:
  virtual ~CapturedMode() = default;

  // Queues a pass on what was written last. What it reads back is there once the stream has got there.
  virtual void launch() const = 0;
};

// The whole image as one CUDA graph: one launch, without the host in between.
//
//     stem, decide 1 ─▶ SWITCH 1 ─▶ SWITCH 2 ─▶ … ─▶ decoder
//                       │ a body for each capacity: gather, block 2 at that size, decide 2 (sets SWITCH 2)
class GraphMode : public CapturedMode {
 public:
  // Captures. Throws DovitError where the device cannot, or where a plan cannot be part of a graph.
  GraphMode(const LoadedProgram& program, const Transfers& transfers, const Stream& stream, PixelSource source);

  void launch() const override { graph_.launch(stream_.get()); }

 private:
  void capture_body(CUgraph body, const SegmentRun& run) const;

  const LoadedProgram& program_;
  const Stream& stream_;
  Graph graph_;
};

// How many tokens a decision kept, copied to pinned memory.
class KeptCount {
 public:
  explicit KeptCount(const LoadedProgram& program);

  void enqueue(size_t decision, CUstream stream) const;  // from 0
  int64_t read(const Stream& stream) const;              // waits; throws DovitError where it is no count

 private:
  const LoadedProgram& program_;
  const PinnedBuffer count_;
};

// A graph for each segment and capacity: one launch and one read a decision. For drivers without SWITCH nodes, and for
// plans that cannot be in the body of one. Segments that are `uncapturable` are queued operation by operation.
class SegmentedMode : public CapturedMode {
 public:
  SegmentedMode(const LoadedProgram& program, const Transfers& transfers, const Stream& stream, PixelSource source,
                const std::set<SegmentKey>& uncapturable);

  void launch() const override;

 private:
  using Launch = std::function<void()>;

  const Stream& stream_;
  const KeptCount kept_;
  Launch first_, last_;
  std::vector<std::map<int64_t, Launch>> between_;  // [n - 1]: segment n by kept tokens
};

// No graph and no filling up: the kept sets are exactly those of ξ, or as large as a request says.
class ExactMode {
 public:
  ExactMode(const LoadedProgram& program, const Transfers& transfers, const Stream& stream);

  // Queues a pass with the pixels that lie in pinned memory or on the device.
  void launch(const Request& request, PixelSource source) const;

 private:
  const LoadedProgram& program_;
  const Transfers& transfers_;
  const Stream& stream_;
  const KeptCount kept_;
  const PinnedBuffer fixed_;  // each decision's fixed capacity: the copies may come later than the next is written
};

}  // namespace dovit::runtime
