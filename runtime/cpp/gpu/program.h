// One pass over the chain as queued work: which operation with which places and sizes, given what the decisions kept.
//
// The same queueing serves all modes. Captured into a graph, a segment is recorded once a capacity, and the number of
// tokens before its gather is read on the device, for any capacity may have come before.
#pragma once

#include <memory>
#include <optional>

#include "gpu/engine.h"
#include "gpu/kernels.h"
#include "gpu/memory_plan.h"
#include "gpu/segments.h"

namespace dovit::runtime {

// A plan set as it runs on a device. `engines` are by the names of the steps that are plans.
struct Plans {
  const Manifest& manifest;
  const PlanSet& set;
  std::map<std::string, std::unique_ptr<PlanEngine>> engines;
  Kernels kernels;
  DevicePtr device;
};

// What a decision's kept count may be: one of the bundle's capacities, any number, or the one in kOnlyCapacity.
enum class Allowed { kCapacities, kAny, kFixed };

struct SegmentRun {
  size_t number;                               // segment n runs on what decision n has left, 0 on all tokens
  int64_t kept;                                // how many those are
  std::optional<int64_t> came;                 // the tokens before that decision; none where only the device knows
  CUgraphConditionalHandle switch_handle = 0;  // that the segment's own decision sets
  Allowed allowed = Allowed::kCapacities;      // from what it chooses
};

// A plan at a size that is captured: in segment `number` with `kept` tokens, or in the decoder, which comes after the
// last segment and for which `kept` is 0. `tokens`: what it runs on.
struct PlanSizes {
  const PlanStep* step;
  size_t number;
  int64_t kept, tokens;
};

// A plan set's steps with memory of their own. Not for two threads at a time.
class Program {
 public:
  // Throws DovitError where the device's memory is too small.
  explicit Program(const Plans& plans);

  const Plans& plans() const { return plans_; }
  const Manifest& manifest() const { return plans_.manifest; }
  const Device& device() const { return *plans_.device; }
  const MemoryPlan& memory() const { return memory_; }

  // The address of a tensor, and of all that a caller reads after a pass, memory().results bytes.
  CUdeviceptr place(const std::string& name) const { return block_->place() + memory_.offsets.at(name); }
  CUdeviceptr results() const { return block_->place(); }

  // Queues a segment. With no token kept, what is left is to hand `full` to the decoder.
  void enqueue(const SegmentRun& run, CUstream stream) const;

  // Queues what runs on all positions again.
  void enqueue_decoder(CUstream stream) const;

  // Runs every plan once at every capacity, on zeros, and every kernel once: what they set up at their first run, such
  // as code that CUDA loads when it is first used, is no part of a capture.
  void warm_up(const Stream& stream) const;

  // Every plan at every size that a captured pass can have.
  std::vector<PlanSizes> plan_sizes() const;
  void enqueue_plan(const PlanSizes& sizes, CUstream stream) const;

  // A tensor that a step makes. Throws DovitError where none does.
  const TensorSpec& made(const std::string& name) const;

  // The shape of a tensor of all positions.
  Shape full_shape(const TensorSpec& spec) const { return resolve(spec, dims(0, 0)); }

 private:
  Dimensions dims(size_t number, int64_t kept) const;
  CUdeviceptr argument(const std::string& name) const;
  void write_constants(const Stream& stream) const;
  void warm_up_kernels(const Stream& stream) const;
  void enqueue_steps(const SegmentRun& run, bool plans, CUstream stream) const;
  void run(const PlanStep& step, const Dimensions& dims, bool lasting, CUstream stream) const;
  void decide(const PlanStep& step, const SegmentRun& run, CUstream stream) const;
  void gather(const PlanStep& step, const SegmentRun& run, CUstream stream) const;
  void reconstruct(const PlanStep& step, int64_t kept, CUstream stream) const;
  void labels(const PlanStep& step, CUstream stream) const;
  void fill_taps(size_t number, CUstream stream) const;
  size_t scratch_bytes() const;

  const Plans& plans_;
  const Segments segments_;
  const MemoryPlan memory_;
  std::unique_ptr<DeviceBuffer> block_;
};

}  // namespace dovit::runtime
