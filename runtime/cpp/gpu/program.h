// A program with its arena on a device: queues what the program says, at the counts that the decisions chose.
//
// The same operations are queued in all modes. Captured into a graph, a segment is recorded once a capacity.
#pragma once

#include <memory>

#include "bundle/program.h"
#include "gpu/engine.h"
#include "gpu/kernels.h"

namespace dovit::runtime {

// A plan set as it runs on a device. `engines` are by the names of the steps that are plans.
struct Plans {
  const Manifest& manifest;
  const PlanSet& set;
  const Program program;
  std::map<std::string, std::unique_ptr<PlanEngine>> engines;
  Kernels kernels;
  DevicePtr device;
};

// What a decision's kept count may be: one of the bundle's capacities, any number, or the one in `fixed_capacity`.
enum class Allowed { kCapacities, kAny, kFixed };

// A segment, whose decision has kept `kept` tokens: all of them for the first and the last.
struct SegmentRun {
  size_t segment;
  int64_t kept;
  CUgraphConditionalHandle switch_handle = 0;  // that the segment's own decision sets
  Allowed allowed = Allowed::kCapacities;      // from what it chooses
};

// A plan at a size that is captured: of segment `segment`, which runs on `tokens` tokens.
struct SizedPlan {
  const RunPlan* plan;
  size_t segment;
  int64_t tokens;
};

// The program of a plan set with memory of its own. Not for two threads at a time.
class LoadedProgram {
 public:
  // Throws DovitError where the device's memory is too small.
  explicit LoadedProgram(const Plans& plans);

  const Plans& plans() const { return plans_; }
  const Program& program() const { return plans_.program; }
  const Manifest& manifest() const { return plans_.manifest; }
  const Device& device() const { return *plans_.device; }
  size_t bytes() const { return arena_bytes() + scratch_bytes_; }
  size_t last_segment() const { return program().segments.size() - 1; }

  // Where a tensor lies, and all that a caller reads after a pass, in one piece.
  CUdeviceptr address(const std::string& name) const;
  CUdeviceptr results() const { return arena_->address(); }

  // Queues a segment.
  void enqueue(const SegmentRun& run, CUstream stream) const;

  // Runs every plan once at every capacity, on zeros, and every kernel once: what they set up at their first run, such
  // as code that CUDA loads when it is first used, is no part of a capture.
  void warm_up(const Stream& stream) const;

  // Every plan at every size that a captured pass can have.
  std::vector<SizedPlan> sized_plans() const;
  void enqueue_plan(const SizedPlan& sized, CUstream stream) const;
  std::string why_not_capturable(const SizedPlan& sized, CUstream stream) const;  // see PlanEngine

 private:
  size_t arena_bytes() const { return static_cast<size_t>(program().arena_bytes); }
  CUdeviceptr scratch() const { return arena_->address() + arena_bytes(); }
  bool all_positions(size_t segment) const { return segment == 0 || segment == last_segment(); }
  void write_constants(const Stream& stream) const;
  void warm_up_kernels(const Stream& stream) const;
  PlanCall call_of(const RunPlan& plan, int64_t kept, bool recurring, CUstream stream) const;
  void enqueue(const LaunchKernel& launch, const SegmentRun& run, CUstream stream) const;
  void enqueue(const Copy& copy, CUstream stream) const;
  uint64_t value(const Argument& argument, const SegmentRun& run) const;
  size_t most_scratch() const;

  const Plans& plans_;
  const size_t scratch_bytes_;
  std::unique_ptr<DeviceBuffer> arena_;
};

}  // namespace dovit::runtime
