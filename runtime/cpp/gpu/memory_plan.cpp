#include "gpu/memory_plan.h"

#include <algorithm>

#include "chain/tensor.h"
#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr size_t kAlignment = 256;  // bytes, as the CUDA allocator's own

std::map<std::string, size_t> tensor_bytes(const Manifest& manifest, const std::vector<PlanStep>& steps) {
  Dimensions dims = full_dims(manifest);
  dims[kCapacities] = static_cast<int64_t>(manifest.capacities.size());
  std::map<std::string, size_t> bytes;
  for (const PlanStep& step : steps)
    for (const auto* specs : {&step.inputs, &step.outputs})
      for (const TensorSpec& spec : *specs)
        bytes[spec.name] = Tensor{dtype_of(spec), resolve(spec, dims), nullptr, nullptr}.bytes();
  bytes[kImage] = static_cast<size_t>(manifest.image_size[0] * manifest.image_size[1]) * 3;
  bytes[kThresholds] = sizeof(float) * std::max<size_t>(manifest.decisions.size(), 1);
  bytes[kCapacities] = sizeof(int64_t) * std::max<size_t>(manifest.capacities.size(), 1);
  for (const std::string& name : {kNoneStopped, kSpareCount, kOnlyCapacity}) bytes[name] = sizeof(int64_t);
  for (size_t number = 1; number <= manifest.decisions.size(); ++number) {
    bytes[capacity_place(number)] = bytes[staying_place(number)] = sizeof(int32_t);
    bytes[slots_place(number)] = sizeof(int32_t) * static_cast<size_t>(manifest.tokens());
  }
  return bytes;
}

// Tensors that kernels change in place: the name of the one that their memory began as.
std::map<std::string, std::string> shared_places(const Manifest& manifest, const std::vector<PlanStep>& steps) {
  std::map<std::string, std::string> owner;
  const auto same = [&](const TensorSpec& output, const TensorSpec& source) {
    const auto found = owner.find(source.name);
    owner[output.name] = found == owner.end() ? source.name : found->second;
  };
  for (const PlanStep& step : steps) {
    if (step.kind == "gather") {
      same(step.outputs[2], step.inputs[2]);
      if (step.outputs.size() > 3)
        same(step.outputs[3], step.inputs[3]);  // nobody asks for the sums after the last one
    } else if (step.kind == "reconstruct") {
      // the kept tokens' latest values are what `full` says of them from here on, so nobody minds; but a tap's are not
      const bool tap = std::count(manifest.taps.begin(), manifest.taps.end(), step.outputs[0].name) > 0;
      if (!tap) same(step.outputs[0], step.inputs[0]);
    }
  }
  return owner;
}

class Planner {
 public:
  Planner(const Manifest& manifest, const std::vector<PlanStep>& steps)
      : manifest_(manifest),
        steps_(steps),
        bytes_(tensor_bytes(manifest, steps)),
        owner_(shared_places(manifest, steps)) {}

  MemoryPlan plan(size_t scratch) {
    place_results();
    find_last_readers();
    for (const std::string& name : {kImage, kThresholds, kCapacities, kNoneStopped, kSpareCount, kOnlyCapacity})
      take(name, 0);
    for (size_t number = 0; number < steps_.size(); ++number)
      for (const std::string& name : made_by(steps_[number])) {
        const std::string place = owner(name);
        if (!offsets_.count(place) && !region_of_.count(place)) take(place, number);
      }
    std::vector<size_t> starts;
    for (const Region& region : regions_) {
      starts.push_back(end_);
      end_ = aligned(end_ + region.bytes);
    }
    for (const auto& [name, region] : region_of_) offsets_[name] = starts[region];
    for (const auto& [name, place] : owner_) offsets_[name] = offsets_.at(place);
    offsets_[kScratch] = end_;
    return {offsets_, bytes_, aligned(end_ + scratch), results_};
  }

 private:
  struct Region {
    size_t bytes, busy_until;
  };

  std::string owner(const std::string& name) const {
    const auto found = owner_.find(name);
    return found == owner_.end() ? name : found->second;
  }

  // What a caller reads after a pass, small things first.
  void place_results() {
    std::vector<std::string> names;
    for (size_t number = 1; number <= manifest_.decisions.size(); ++number) names.push_back(capacity_place(number));
    for (const DecisionSpec& decision : manifest_.decisions)
      for (const std::string& name : {decision.confidence, decision.state.index, decision.keep}) names.push_back(name);
    names.push_back("labels");
    for (const std::string& name : names) {
      if (!bytes_.count(name)) throw DovitError(text("the plans make no ", name, "; build them again"));
      offsets_[name] = end_;
      end_ = aligned(end_ + bytes_.at(name));
    }
    results_ = end_;
  }

  void find_last_readers() {
    for (const std::string& name :
         {std::string("logits"), kImage, kThresholds, kCapacities, kNoneStopped, kSpareCount, kOnlyCapacity})
      last_[name] = steps_.size();
    for (size_t number = 0; number < steps_.size(); ++number) {
      const PlanStep& step = steps_[number];
      for (const auto* specs : {&step.inputs, &step.outputs})
        for (const TensorSpec& spec : *specs) {
          size_t& last = last_[owner(spec.name)];
          last = std::max(last, number);
        }
      if (step.kind == "decide") {  // its gather reads the slots, not the list
        const size_t decided = decision_number(manifest_, step);
        last_[staying_place(decided)] = last_[slots_place(decided)] = number;
        for (size_t n = 0; n < steps_.size(); ++n)
          if (steps_[n].kind == "gather" && steps_[n].inputs[5].name == step.outputs[0].name)
            last_[slots_place(decided)] = n;
      }
    }
  }

  std::vector<std::string> made_by(const PlanStep& step) const {
    std::vector<std::string> names;
    for (const TensorSpec& spec : step.outputs) names.push_back(spec.name);
    if (step.kind == "decide") {
      const size_t number = decision_number(manifest_, step);
      names.push_back(slots_place(number));
      names.push_back(staying_place(number));
    }
    return names;
  }

  // Gives `name` the region that fits best of those whose last reader is before `now`, or a new one.
  void take(const std::string& name, size_t now) {
    const size_t bytes = bytes_.at(name);
    const auto cost = [&](const Region& region) {
      return std::pair(bytes > region.bytes ? bytes - region.bytes : 0,
                       std::max(bytes, region.bytes) - std::min(bytes, region.bytes));
    };
    size_t chosen = regions_.size();
    for (size_t k = 0; k < regions_.size(); ++k)
      if (regions_[k].busy_until < now && (chosen == regions_.size() || cost(regions_[k]) < cost(regions_[chosen])))
        chosen = k;
    if (chosen == regions_.size()) regions_.push_back({0, 0});
    regions_[chosen] = {std::max(regions_[chosen].bytes, bytes), last_.at(name)};
    region_of_[name] = chosen;
  }

  const Manifest& manifest_;
  const std::vector<PlanStep>& steps_;
  const std::map<std::string, size_t> bytes_;
  const std::map<std::string, std::string> owner_;
  std::map<std::string, size_t> offsets_, last_, region_of_;
  std::vector<Region> regions_;  // in the order in which tensors are first written; each is free after its last reader
  size_t end_ = 0, results_ = 0;
};

}  // namespace

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::string capacity_place(size_t decision) { return text("capacity", decision); }
std::string slots_place(size_t decision) { return text("slots", decision); }
std::string staying_place(size_t decision) { return text("staying", decision); }

MemoryPlan plan_memory(const Manifest& manifest, const std::vector<PlanStep>& steps, size_t scratch) {
  return Planner(manifest, steps).plan(scratch);
}

size_t decision_number(const Manifest& manifest, const PlanStep& step) {
  for (size_t k = 0; k < manifest.decisions.size(); ++k)
    if (!step.outputs.empty() && manifest.decisions[k].keep == step.outputs[0].name) return k + 1;
  throw DovitError(text("step ", step.name, " is no decision of the bundle; build the plans again"));
}

}  // namespace dovit::runtime
