#include "chain/chain.h"

#include <algorithm>
#include <cstring>

#include "chain/check_outputs.h"
#include "errors.h"

namespace dovit::runtime {

namespace {

// The tensor called `name`, with its shape and memory as they were checked when it was made.
const Tensor& find(const Tensors& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) throw DovitError(text("tensor ", name, " was not made; export the bundle again"));
  return found->second;
}

template <class T>
std::vector<T> values(const Tensor& tensor, DType type, const std::string& name) {
  if (tensor.type != type) throw DovitError(text("tensor ", name, " has another type than expected"));
  return {tensor.as<T>(), tensor.as<T>() + tensor.elements()};
}

const DecisionSpec* decision_of(const Manifest& manifest, const Step& step) {
  for (const DecisionSpec& decision : manifest.decisions)
    for (const TensorSpec& spec : step.outputs)
      if (spec.name == decision.keep) return &decision;
  return nullptr;
}

}  // namespace

Chain::Chain(const Manifest& manifest, std::vector<std::unique_ptr<Engine>> engines, Schedule default_schedule)
    : manifest_(manifest),
      engines_(std::move(engines)),
      default_schedule_(default_schedule),
      plan_(plan_buffers(manifest)) {}

Pass Chain::run(const Frame& frame, const Request& request) const {
  std::unique_ptr<Workspace> workspace = take();
  Pass pass = run(*workspace, frame.pixels, request);
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(workspace));  // after a failure it is not given back, but freed
  return pass;
}

std::unique_ptr<Workspace> Chain::take() const {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Workspace> workspace = std::move(idle_.back());
      idle_.pop_back();
      return workspace;
    }
  }
  return std::make_unique<Workspace>(plan_);
}

// The kept counts that are allowed, ascending.
std::vector<int64_t> Chain::capacities(const Request& request, size_t decision) const {
  if (request.counts) return {(*request.counts)[decision]};
  if (request.schedule == Schedule::kBucketed) return manifest_.capacities;
  const int64_t step = request.schedule == Schedule::kRounded ? kRoundedTo : 1;
  std::vector<int64_t> all;
  for (int64_t count = 0; count < manifest_.tokens(); count += step) all.push_back(count);
  all.push_back(manifest_.tokens());
  return all;
}

Pass Chain::run(const Workspace& workspace, const uint8_t* pixels, const Request& request) const {
  const auto& steps = manifest_.steps;
  Dimensions dims{{"batch", 1}};
  Tensors tensors;
  tensors["image"] = Tensor{DType::kUint8,
                            {1, manifest_.image_size[0], manifest_.image_size[1], 3},
                            const_cast<uint8_t*>(pixels),
                            nullptr};  // engines only read their inputs
  tensors["stopped_count0"] = make_tensor(DType::kInt64, {1});
  *tensors["stopped_count0"].as<int64_t>() = 0;
  for (size_t k = 0; k < manifest_.decisions.size(); ++k) {
    Tensor& threshold = tensors[manifest_.decisions[k].threshold] = make_tensor(DType::kFloat32, {});
    // ξ = 0 stops every token, and the only capacity is filled up with those of lowest confidence
    *threshold.as<float>() = request.counts ? 0.0f : static_cast<float>(request.thresholds[k]);
  }

  Pass pass;
  int64_t before = manifest_.tokens();  // tokens that the next decision is made on
  bool ended = false;
  for (size_t number = 0; number < steps.size();) {
    const Step& step = steps[number];
    const bool last = number + 1 == steps.size();
    const DecisionSpec* deciding = decision_of(manifest_, step);
    if (deciding) {
      const std::vector<int64_t> allowed = capacities(request, pass.decisions.size());
      Tensor& list = tensors["capacities"] = make_tensor(DType::kInt64, {static_cast<int64_t>(allowed.size())});
      std::copy(allowed.begin(), allowed.end(), list.as<int64_t>());
    }
    Tensors inputs, outputs;
    for (const TensorSpec& spec : step.inputs) inputs[spec.name] = find(tensors, spec.name);
    for (const TensorSpec& spec : step.outputs) {
      if (deciding && spec.name == deciding->keep)
        outputs[spec.name] = Tensor{dtype_of(spec), {}, nullptr, nullptr};
      else if (last || ended)  // results are the caller's; after an early end, slots hold what is read out of turn
        outputs[spec.name] = make_tensor(dtype_of(spec), resolve(spec, dims));
      else
        outputs[spec.name] = workspace.place(spec, dims);
    }
    engines_[number]->run(inputs, outputs);
    for (const TensorSpec& spec : step.outputs) {
      const Tensor& made = outputs.at(spec.name);
      if (deciding && spec.name == deciding->keep)
        check_keep(step.name, spec.name, made, before);
      else
        check_made(step.name, spec.name, made, dtype_of(spec), resolve(spec, dims));
      tensors[spec.name] = made;
    }
    ++number;
    if (deciding) {
      const std::string &q = deciding->confidence, &at = deciding->state.index;
      DecisionResult decided{values<float>(find(tensors, q), DType::kFloat32, q),
                             values<int32_t>(find(tensors, at), DType::kInt32, at),
                             values<int32_t>(find(tensors, deciding->keep), DType::kInt32, deciding->keep)};
      check_decided(decided, *deciding, before, manifest_.tokens());
      const auto kept = static_cast<int64_t>(decided.keep.size());
      pass.decisions.push_back(std::move(decided));
      before = kept;
      set_kept(dims, manifest_, pass.decisions.size(), kept);
      if (kept == 0) {  // the backbone ends early: the decoder takes over what there is
        end_early(*deciding, tensors);
        number = steps.size() - 1;
        ended = true;
      }
    }
  }
  pass.labels = find(tensors, "labels");
  check_labels(pass.labels, manifest_.classes);
  pass.logits = find(tensors, "logits");
  return pass;
}

// The decoder's inputs from the state before a decision that kept nothing: every token has its final value.
void Chain::end_early(const DecisionSpec& decision, Tensors& tensors) const {
  const State &state = decision.state, &final = manifest_.final;
  const Tensor tokens = find(tensors, state.tokens), index = find(tensors, state.index),
               full = find(tensors, state.full);
  bool missing = false;
  for (const std::string& tap : manifest_.taps) missing = missing || !tensors.count(tap);
  if (missing) {
    const Tensor merged = copied(full);  // [1, N, E]
    const int64_t count = index.elements();
    if (full.shape.size() != 3 || tokens.shape.size() != 3 || full.shape[0] != 1 || tokens.shape[0] != 1 ||
        full.shape[2] != tokens.shape[2] || tokens.shape[1] != count + manifest_.prefix ||
        full.shape[1] != manifest_.tokens() || full.type != tokens.type)
      throw DovitError(text("tensors ", state.full, " and ", state.tokens, " do not fit together"));
    const size_t row = static_cast<size_t>(full.shape[2]) * item_bytes(full.type);
    for (int64_t k = 0; k < count; ++k)
      std::memcpy(merged.as<char>() + static_cast<size_t>(index.as<int32_t>()[k]) * row,
                  tokens.as<char>() + static_cast<size_t>(manifest_.prefix + k) * row, row);
    for (const std::string& tap : manifest_.taps) tensors.emplace(tap, merged);
  }
  tensors[final.tokens] = tokens;
  tensors[final.index] = index;
  tensors[final.full] = full;
}

}  // namespace dovit::runtime
