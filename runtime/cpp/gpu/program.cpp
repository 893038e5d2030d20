#include "gpu/program.h"

#include <algorithm>

#include "errors.h"

namespace dovit::runtime {

Program::Program(const Plans& plans)
    : plans_(plans),
      segments_(cut_segments(plans.set.steps, plans.manifest.decisions.size())),
      memory_(plan_memory(plans.manifest, plans.set.steps, scratch_bytes())) {
  const size_t free = device().free_bytes();
  if (memory_.size > free)
    throw DovitError(text("the ", plans.set.name(), " plans need ", mebibytes(memory_.size), " on ", device().name,
                          ", of which ", mebibytes(free), " are free: close what else uses it"));
  block_ = std::make_unique<DeviceBuffer>(plans.device, memory_.size);
}

void Program::enqueue(const SegmentRun& segment, CUstream stream) const {
  enqueue_steps(segment, true, stream);
  if (segment.kept == 0) fill_taps(segment.number, stream);
}

// The plans, unless they are left out, and the kernels of a segment.
void Program::enqueue_steps(const SegmentRun& segment, bool plans, CUstream stream) const {
  const Dimensions sizes = dims(segment.number, segment.kept);
  for (const PlanStep* step : segments_.after[segment.number]) {
    if (step->kind == "gather")
      gather(*step, segment, stream);
    else if (segment.kept == 0)
      continue;
    else if (step->kind == "decide")
      decide(*step, segment, stream);
    else if (step->kind == "reconstruct")
      reconstruct(*step, segment.kept, stream);
    else if (step->kind == "labels")
      labels(*step, stream);
    else if (plans)
      run(*step, sizes, segment.allowed == Allowed::kCapacities || segment.number == 0, stream);
  }
}

void Program::enqueue_decoder(CUstream stream) const {
  for (const PlanStep* step : segments_.decoder) {
    if (step->kind == "labels")
      labels(*step, stream);
    else
      run(*step, dims(0, 0), true, stream);
  }
}

void Program::warm_up(const Stream& stream) const {
  device().check(device().driver.cuMemsetD8Async(block_->place(), 0, memory_.size, stream.get()), "cuMemsetD8Async");
  for (const PlanSizes& sizes : plan_sizes()) enqueue_plan(sizes, stream.get());
  write_constants(stream);
  warm_up_kernels(stream);
}

// With all tokens kept throughout, so that each finds what the one before has made.
void Program::warm_up_kernels(const Stream& stream) const {
  const int64_t tokens = manifest().tokens();
  copy(device(), place(kOnlyCapacity), address(&tokens), sizeof tokens, stream.get());
  for (size_t number = 0; number < segments_.after.size(); ++number)
    enqueue_steps({number, tokens, tokens, 0, Allowed::kFixed}, false, stream.get());
  for (const PlanStep* step : segments_.decoder)
    if (step->kind == "labels") labels(*step, stream.get());
  stream.wait();
}

std::vector<PlanSizes> Program::plan_sizes() const {
  std::vector<PlanSizes> found;
  const int64_t tokens = manifest().tokens();
  const size_t last = segments_.after.size();
  const auto add = [&](const Steps& steps, size_t number, int64_t kept) {
    for (const PlanStep* step : steps)
      if (kept && step->kind == "plan") found.push_back({step, number, number == last ? 0 : kept, kept});
  };
  add(segments_.after[0], 0, tokens);
  for (size_t number = 1; number < last; ++number)
    for (const int64_t kept : manifest().capacities) add(segments_.after[number], number, kept);
  add(segments_.decoder, last, tokens);
  return found;
}

void Program::enqueue_plan(const PlanSizes& sizes, CUstream stream) const {
  run(*sizes.step, dims(sizes.number < segments_.after.size() ? sizes.number : 0, sizes.kept), true, stream);
}

const TensorSpec& Program::made(const std::string& name) const {
  for (const PlanStep& step : plans_.set.steps)
    for (const TensorSpec& spec : step.outputs)
      if (spec.name == name) return spec;
  throw DovitError(text("the plans make no ", name, "; build them again"));
}

Dimensions Program::dims(size_t number, int64_t kept) const {
  Dimensions sizes{{"batch", 1}, {kCapacities, static_cast<int64_t>(manifest().capacities.size())}};
  if (number) set_kept(sizes, manifest(), number, kept);
  return sizes;
}

// What every pass finds and none changes: the capacities, and that nothing has stopped at first.
void Program::write_constants(const Stream& stream) const {
  const std::vector<int64_t>& capacities = manifest().capacities;
  copy(device(), place(kCapacities), address(capacities.data()), capacities.size() * sizeof(int64_t), stream.get());
  device().check(device().driver.cuMemsetD8Async(place(kNoneStopped), 0, sizeof(int64_t), stream.get()),
                 "cuMemsetD8Async");
  stream.wait();
}

// A tensor as a step takes it: each decision's ξ is one of a list.
CUdeviceptr Program::argument(const std::string& name) const {
  const std::vector<DecisionSpec>& decisions = manifest().decisions;
  for (size_t k = 0; k < decisions.size(); ++k)
    if (name == decisions[k].threshold) return place(kThresholds) + k * sizeof(float);
  return place(name);
}

void Program::run(const PlanStep& step, const Dimensions& sizes, bool lasting, CUstream stream) const {
  Places places;
  for (const auto* specs : {&step.inputs, &step.outputs})
    for (const TensorSpec& spec : *specs) places[spec.name] = argument(spec.name);
  plans_.engines.at(step.name)->enqueue({places, sizes, place(kScratch), stream, lasting});
}

void Program::decide(const PlanStep& step, const SegmentRun& segment, CUstream stream) const {
  const size_t number = segment.number + 1;
  dovit_decide_args call{};
  call.confidence = At{argument(step.inputs[0].name)};
  call.threshold = At{argument(step.inputs[1].name)};
  call.capacities = At{place(segment.allowed == Allowed::kCapacities ? kCapacities : kOnlyCapacity)};
  call.capacity_count = segment.allowed == Allowed::kCapacities ? static_cast<int>(manifest().capacities.size())
                                                                : segment.allowed == Allowed::kFixed;
  call.batch = 1;
  call.count = static_cast<int>(segment.kept);
  call.staying = At{place(staying_place(number))};
  call.keep = At{place(step.outputs[0].name)};
  call.slots = At{place(slots_place(number))};
  call.capacity = At{place(capacity_place(number))};
  call.switch_handle = segment.switch_handle;
  plans_.kernels.decide(call, stream);
}

void Program::gather(const PlanStep& step, const SegmentRun& segment, CUstream stream) const {
  const int64_t tokens = manifest().tokens();
  const std::optional<int64_t> came = segment.number == 1 ? tokens : segment.came;
  const bool sums = step.outputs.size() > 3;  // nobody asks for those after the last decision
  dovit_gather_args call{};
  call.type = kernel_type(dtype_of(step.inputs[0]));
  call.tokens = At{place(step.inputs[0].name)};
  call.index = At{place(step.inputs[1].name)};
  call.slots = At{place(slots_place(segment.number))};
  call.kept = At{place(step.outputs[0].name)};
  call.kept_index = At{place(step.outputs[1].name)};
  call.full = At{place(step.outputs[2].name)};
  call.sum_before = At{place(step.inputs[3].name)};
  call.sum_after = At{place(sums ? step.outputs[3].name : step.inputs[3].name)};
  call.stopped_before = At{place(step.inputs[4].name)};
  call.stopped_after = At{place(sums ? step.outputs[4].name : kSpareCount)};
  call.actual_count = At{came ? 0 : place(capacity_place(segment.number - 1))};
  call.batch = 1;
  call.count = static_cast<int>(came.value_or(tokens));
  call.capacity = static_cast<int>(segment.kept);
  call.prefix = static_cast<int>(manifest().prefix);
  call.positions = static_cast<int>(tokens);
  call.channels = static_cast<int>(manifest().embed_dim);
  call.scratch = At{place(kScratch)};
  plans_.kernels.gather(call, stream);
}

void Program::reconstruct(const PlanStep& step, int64_t kept, CUstream stream) const {
  const CUdeviceptr full = place(step.inputs[0].name), out = place(step.outputs[0].name);
  if (out != full)  // a tap: all positions as they are now
    copy(device(), out, full, memory_.bytes.at(step.outputs[0].name), stream);
  dovit_reconstruct_args call{};
  call.type = kernel_type(dtype_of(step.inputs[1]));
  call.tokens = At{place(step.inputs[1].name)};
  call.index = At{place(step.inputs[2].name)};
  call.full = At{out};
  call.batch = 1;
  call.count = static_cast<int>(kept);
  call.prefix = static_cast<int>(manifest().prefix);
  call.positions = static_cast<int>(manifest().tokens());
  call.channels = static_cast<int>(manifest().embed_dim);
  plans_.kernels.reconstruct(call, stream);
}

void Program::labels(const PlanStep& step, CUstream stream) const {
  const Shape logits = full_shape(step.inputs[0]), made = full_shape(step.outputs[0]);  // [1, C, h, w], [1, H, W]
  dovit_labels_args call{};
  call.type = kernel_type(dtype_of(step.inputs[0]));
  call.logits = At{place(step.inputs[0].name)};
  call.labels = At{place(step.outputs[0].name)};
  call.batch = 1;
  call.classes = static_cast<int>(logits[1]);
  call.height = static_cast<int>(logits[2]);
  call.width = static_cast<int>(logits[3]);
  call.scale = static_cast<int>(made[1] / logits[2]);
  plans_.kernels.labels(call, stream);
}

// Taps of layers that no token reaches: every position has its final value.
void Program::fill_taps(size_t number, CUstream stream) const {
  for (size_t segment = number; segment < segments_.after.size(); ++segment)
    for (const PlanStep* step : segments_.after[segment])
      for (const TensorSpec& spec : step->outputs)
        if (std::count(manifest().taps.begin(), manifest().taps.end(), spec.name))
          copy(device(), place(spec.name), place(step->inputs[0].name), memory_.bytes.at(spec.name), stream);
}

size_t Program::scratch_bytes() const {
  size_t most = plans_.kernels.gather_scratch_bytes(1, static_cast<int>(manifest().tokens()),
                                                    static_cast<int>(manifest().embed_dim));
  for (const auto& [name, engine] : plans_.engines) most = std::max(most, engine->scratch_bytes());
  return most;
}

}  // namespace dovit::runtime
