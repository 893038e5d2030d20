#include "tensorrt/engine.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "errors.h"

namespace dovit::runtime {

namespace {

// nvinfer1's
constexpr int32_t kUserManaged = 2;  // ExecutionContextAllocationStrategy
constexpr int32_t kEager = 1;        // DynamicShapesKernelSpecializationStrategy

std::string contents(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (!in.good() && !in.eof()) throw DovitError(text(file, ": cannot be read"));
  return bytes;
}

}  // namespace

TensorRtEngine::TensorRtEngine(std::shared_ptr<const TensorRt> library, const PlanStep& step, const std::string& file)
    : library_(std::move(library)),
      step_(step),
      engine_(library_->deserialize(contents(file), file)),
      scratch_bytes_(
          std::max<int64_t>(call<int64_t>(engine_->implementation, library_->slots().device_memory_size), 1)) {}

void TensorRtEngine::enqueue(const PlanRun& run) const {
  const Slots& slots = library_->slots();
  void* const running = context(run);
  call<void>(running, slots.set_device_memory, reinterpret_cast<void*>(run.scratch),
             static_cast<int64_t>(scratch_bytes_));
  for (const auto& [name, place] : run.places)
    check(call<bool>(running, slots.set_tensor_address, name.c_str(), reinterpret_cast<void*>(place)),
          text("refuses the tensor ", name, " of"));
  check(call<bool>(running, slots.enqueue, run.stream), "could not enqueue");
}

// The context for these sizes, made when they are first seen, which cannot happen during a capture.
void* TensorRtEngine::context(const PlanRun& run) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  Context& kept = contexts_[{run.scratch, run.lasting ? run.dims : Dimensions{}}];
  const bool fresh = !kept.context;
  if (fresh) kept = make_context();
  if (fresh || !run.lasting) set_sizes(kept.context->implementation, run, !fresh);
  return kept.context->implementation;
}

// Scratch memory is ours. TensorRT-RTX compiles kernels for a shape when it first sees it, by default in the background
// while general ones run: those would be captured, and stay. So it is to finish first.
TensorRtEngine::Context TensorRtEngine::make_context() const {
  const Slots& slots = library_->slots();
  void* const engine = engine_->implementation;
  Context made;
  if (slots.create_runtime_config >= 0) {
    made.settings.reset(call<Handed*>(engine, slots.create_runtime_config));
    check(made.settings != nullptr, "makes no settings for");
    call<void>(made.settings->implementation, slots.set_allocation_strategy, kUserManaged);
    call<void>(made.settings->implementation, slots.set_specialization_strategy, kEager);
    made.context.reset(
        call<Handed*>(engine, slots.create_execution_context_with_config, static_cast<void*>(made.settings.get())));
  } else {
    made.context.reset(call<Handed*>(engine, slots.create_execution_context, kUserManaged));
  }
  check(made.context != nullptr, "makes no context for");
  return made;
}

void TensorRtEngine::set_sizes(void* context, const PlanRun& run, bool again) const {
  const Slots& slots = library_->slots();
  // a context begins with profile 0, and setting one anew waits for the device
  const auto chosen = static_cast<int32_t>(profile(run.dims));
  if (chosen || again)
    check(call<bool>(context, slots.set_optimization_profile, chosen, run.stream),
          text("refuses profile ", chosen, " of"));
  for (const TensorSpec& spec : step_.inputs) {
    const Shape shape = resolve(spec, run.dims);
    Dims dims;
    dims.count = static_cast<int32_t>(shape.size());
    check(shape.size() <= Dims::kMost, text("takes no ", shape.size(), " dimensions for ", spec.name, " of"));
    std::copy(shape.begin(), shape.end(), dims.sizes);
    check(call<bool>(context, slots.set_input_shape, spec.name.c_str(), static_cast<const void*>(&dims)),
          text("refuses the shape of ", spec.name, " for"));
  }
}

// The narrowest profile that holds the kept count.
size_t TensorRtEngine::profile(const Dimensions& dims) const {
  const std::vector<Profile>& profiles = step_.plan->profiles;
  size_t chosen = 0;
  for (const auto& [name, kept] : dims) {
    if (name.rfind("kept", 0) != 0) continue;
    int64_t width = INT64_MAX;
    for (size_t k = 0; k < profiles.size(); ++k)
      if (profiles[k].least <= kept && kept <= profiles[k].most && profiles[k].most - profiles[k].least < width) {
        width = profiles[k].most - profiles[k].least;
        chosen = k;
      }
  }
  return chosen;
}

void TensorRtEngine::check(bool taken, const std::string& what) const {
  if (!taken) throw DovitError(text(library_->title(), " ", what, " ", step_.name, ": ", library_->reason()));
}

}  // namespace dovit::runtime
