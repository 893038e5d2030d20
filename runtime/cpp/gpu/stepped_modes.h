// The chain with the host in the loop: it reads how many tokens are kept after each decision, and queues what is next.
#pragma once

#include "gpu/captured_mode.h"
#include "gpu/graph.h"
#include "gpu/trial.h"

namespace dovit::runtime {

// One pinned number: the count that a decision has left.
class Counter {
 public:
  explicit Counter(const Program& program);

  void enqueue(size_t decision, CUstream stream) const;
  int64_t read(const Stream& stream) const;  // waits; throws DovitError where it is no count

 private:
  const Program& program_;
  const PinnedBuffer count_;
};

// A graph for each segment and capacity: one launch and one read a decision. For drivers without SWITCH nodes, and for
// plans that cannot be in the body of one. Segments that are `uncapturable` are queued operation by operation.
class SegmentedMode : public CapturedMode {
 public:
  SegmentedMode(const Program& program, const Transfers& transfers, const Stream& stream, PixelSource source,
                const std::set<SegmentKey>& uncapturable);

  void launch() const override;

 private:
  using Launch = std::function<void()>;

  const Stream& stream_;
  const Counter counter_;
  Launch first_, decoder_;
  std::vector<std::map<int64_t, Launch>> after_;  // [n - 1]: segment n by kept tokens
};

// No graph and no filling up: the kept sets are exactly those of ξ, or as large as a request says.
class ExactMode {
 public:
  ExactMode(const Program& program, const Transfers& transfers, const Stream& stream);

  // Queues a pass with the pixels that lie in pinned memory or on the device.
  void launch(const Request& request, PixelSource source) const;

 private:
  const Program& program_;
  const Transfers& transfers_;
  const Stream& stream_;
  const Counter counter_;
  const PinnedBuffer only_;  // the only capacity of each decision: the copies may come later than the next is written
};

}  // namespace dovit::runtime
