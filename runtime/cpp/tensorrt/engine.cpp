#include "tensorrt/engine.h"

#include <algorithm>

#include "errors.h"

namespace dovit::runtime {

TensorRtEngine::TensorRtEngine(std::shared_ptr<TensorRt> tensorrt, std::shared_ptr<SharedEngine> engine,
                               const PlanStep& step)
    : tensorrt_(std::move(tensorrt)),
      engine_(std::move(engine)),
      step_(step),
      scratch_bytes_(std::max<int64_t>(engine_->engine->device_memory_bytes(), 1)) {}

void TensorRtEngine::enqueue(const PlanCall& call) const {
  tensorrt::Context& running = context(call);
  running.set_device_memory(call.scratch, static_cast<int64_t>(scratch_bytes_));
  for (const auto& [name, place] : call.addresses)
    check(running.set_tensor_address(name.c_str(), place), text("refuses the tensor ", name, " of"));
  check(running.enqueue(call.stream), "could not enqueue");
}

std::string TensorRtEngine::why_not_capturable(const PlanCall& call) const {
  if (context(call).is_stream_capturable(call.stream)) return "";
  return text(tensorrt_->title(), " says so (IExecutionContext::isStreamCapturable)");
}

// The context for these sizes, made when they are first seen, which cannot happen during a capture.
tensorrt::Context& TensorRtEngine::context(const PlanCall& call) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  ContextPtr& kept = contexts_[{call.scratch, call.recurring ? std::optional(call.tokens) : std::nullopt}];
  const bool fresh = !kept;
  if (fresh) kept = make_context(call.recurring ? tensorrt::Specialization::kEager : tensorrt::Specialization::kNone);
  if (fresh || !call.recurring) set_sizes(*kept, call, !fresh);
  return *kept;
}

// TensorRT-RTX compiles kernels for a shape when it first sees it, by default in the background while general ones run:
// those would be captured, and stay. So it is to finish first; for sizes that do not come again it compiles none.
TensorRtEngine::ContextPtr TensorRtEngine::make_context(tensorrt::Specialization specialization) const {
  const std::lock_guard<std::mutex> lock(engine_->mutex);
  const tensorrt::CompiledKernels* const cache = tensorrt_->runtime_cache().get(*engine_->engine);
  bool cache_taken = false;
  ContextPtr made = engine_->engine->create_context(specialization, cache, &cache_taken);
  check(made != nullptr, "makes no context for");
  if (cache && !cache_taken) tensorrt_->runtime_cache().refused();
  return made;
}

void TensorRtEngine::set_sizes(tensorrt::Context& context, const PlanCall& call, bool again) const {
  // a context begins with profile 0, and setting one anew waits for the device
  const auto chosen = static_cast<int32_t>(call.profile);
  if (chosen || again)
    check(context.set_optimization_profile(chosen, call.stream), text("refuses profile ", chosen, " of"));
  for (const TensorSpec& spec : step_.inputs)
    check(context.set_input_shape(spec.name.c_str(), call.shapes.at(spec.name)),
          text("refuses the shape of ", spec.name, " for"));
}

void TensorRtEngine::check(bool taken, const std::string& what) const {
  if (!taken) throw DovitError(text(tensorrt_->title(), " ", what, " ", step_.name, ": ", tensorrt_->reason()));
}

}  // namespace dovit::runtime
