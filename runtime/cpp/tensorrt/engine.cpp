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

void TensorRtEngine::enqueue(const PlanCall& request) const {
  const Slots& slots = library_->slots();
  void* const running = context(request);
  call<void>(running, slots.set_device_memory, reinterpret_cast<void*>(request.scratch),
             static_cast<int64_t>(scratch_bytes_));
  for (const auto& [name, place] : request.addresses)
    check(call<bool>(running, slots.set_tensor_address, name.c_str(), reinterpret_cast<void*>(place)),
          text("refuses the tensor ", name, " of"));
  check(call<bool>(running, slots.enqueue, request.stream), "could not enqueue");
}

// The context for these sizes, made when they are first seen, which cannot happen during a capture.
void* TensorRtEngine::context(const PlanCall& request) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  Context& kept = contexts_[{request.scratch, request.recurring ? std::optional(request.tokens) : std::nullopt}];
  const bool fresh = !kept.context;
  if (fresh) kept = make_context();
  if (fresh || !request.recurring) set_sizes(kept.context->implementation, request, !fresh);
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

void TensorRtEngine::set_sizes(void* context, const PlanCall& request, bool again) const {
  const Slots& slots = library_->slots();
  // a context begins with profile 0, and setting one anew waits for the device
  const auto chosen = static_cast<int32_t>(request.profile);
  if (chosen || again)
    check(call<bool>(context, slots.set_optimization_profile, chosen, request.stream),
          text("refuses profile ", chosen, " of"));
  for (const TensorSpec& spec : step_.inputs) {
    const Shape& shape = request.shapes.at(spec.name);
    Dims dims;
    dims.count = static_cast<int32_t>(shape.size());
    check(shape.size() <= Dims::kMost, text("takes no ", shape.size(), " dimensions for ", spec.name, " of"));
    std::copy(shape.begin(), shape.end(), dims.sizes);
    check(call<bool>(context, slots.set_input_shape, spec.name.c_str(), static_cast<const void*>(&dims)),
          text("refuses the shape of ", spec.name, " for"));
  }
}

void TensorRtEngine::check(bool taken, const std::string& what) const {
  if (!taken) throw DovitError(text(library_->title(), " ", what, " ", step_.name, ": ", library_->reason()));
}

}  // namespace dovit::runtime
