// An execution context: its shapes and addresses, and running the plan with them.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "stand_in.h"
#include "tensorrt_objects.h"

namespace stand_in {

namespace {

using nvinfer1::apiv::VExecutionContext;

bool refuse(const Context& context, const std::string& sentence) {
  context.engine.runtime.error(sentence);
  return false;
}

// Shapes belong to a profile, so they go with the old one.
bool set_profile(Context* self, int32_t number, CUstream_st*) {
  const size_t count = std::max<size_t>(self->engine.plan->profiles.size(), 1);
  self->profile = number >= 0 && static_cast<size_t>(number) < count ? number : -1;
  self->is_settled = false;
  self->is_shaped.clear();
  return self->profile >= 0 || refuse(*self, "there is no profile " + std::to_string(number));
}

bool lies_in_profile(const Context& context, const std::string& name, const Dims& sizes) {
  const auto& profiles = context.engine.plan->profiles;
  if (profiles.empty()) return true;
  const Range& range = profiles[static_cast<size_t>(context.profile)].at(name);
  for (size_t k = 0; k < sizes.size(); ++k)
    if (sizes[k] < range.least[k] || sizes[k] > range.most[k]) return false;
  return true;
}

bool set_input_shape(Context* self, const char* name, const nvinfer1::Dims& dims) {
  if (stand_in_called("setInputShape")) return refuse(*self, "the shape is refused, as the test wants it");
  const auto& inputs = self->engine.plan->inputs;
  const auto input = inputs.find(name);
  if (input == inputs.end()) return refuse(*self, std::string("there is no input ") + name);
  const Dims sizes(dims.d, dims.d + dims.nbDims);
  const Dims& wanted = input->second.dims;
  bool fits = sizes.size() == wanted.size();
  for (size_t k = 0; fits && k < sizes.size(); ++k) fits = sizes[k] >= 0 && (wanted[k] < 0 || wanted[k] == sizes[k]);
  if (!fits) return refuse(*self, std::string("the input ") + name + " is never of this shape");
  if (self->profile < 0) return refuse(*self, "no profile is selected");
  if (!lies_in_profile(*self, name, sizes))
    return refuse(
        *self, std::string("the input ") + name + " is not of this shape in profile " + std::to_string(self->profile));
  self->is_settled = self->is_settled && self->places[name].dims == sizes;
  self->places[name].dims = sizes;
  self->is_shaped[name] = true;
  return true;
}

bool set_tensor_address(Context* self, const char* name, void* data) {
  if (stand_in_called("setTensorAddress")) return refuse(*self, "the address is refused, as the test wants it");
  const OnnxPlan& plan = *self->engine.plan;
  if (!plan.inputs.count(name) && !plan.outputs.count(name))
    return refuse(*self, std::string("there is no tensor ") + name);
  self->places[name].data = data;
  return true;
}

void set_device_memory(Context* self, void* scratch, int64_t bytes) {
  if (self->settings.allocation != ExecutionContextAllocationStrategy::kUSER_MANAGED)
    refuse(*self, "the memory of this context is not the user's to give");
  self->scratch = scratch;
  self->scratch_bytes = bytes;
}

// What is missing before it can run; empty where nothing is.
std::string missing(const Context& context) {
  if (!stand_in_has_context()) return "no CUDA context is current";
  if (context.profile < 0) return "no profile is selected";
  if (context.settings.allocation != ExecutionContextAllocationStrategy::kUSER_MANAGED)
    return "the memory of this context was to be the user's";
  if (!context.scratch || context.scratch_bytes < kScratchBytes) return "too little device memory was given";
  if (reinterpret_cast<uintptr_t>(context.scratch) % kAlignment) return "the device memory is not aligned";
  for (const auto& [name, input] : context.engine.plan->inputs) {
    bool is_fixed = true;
    for (const int64_t size : input.dims) is_fixed = is_fixed && size >= 0;
    if (!is_fixed && !context.is_shaped.count(name)) return "the input " + name + " has no shape";
    if (!context.places.count(name) || !context.places.at(name).data) return "the input " + name + " has no address";
  }
  for (const auto& [name, output] : context.engine.plan->outputs)
    if (!context.places.count(name) || !context.places.at(name).data) return "the output " + name + " has no address";
  return "";
}

// What TensorRT-RTX compiles for new shapes, if it is to do so before it runs and no cache has it.
bool compile(const Context& context) {
  if (!kIsRtx || context.settings.specialization != Specialization::kEAGER) return true;
  std::string key = context.engine.plan->digest;
  for (const auto& [name, place] : context.places) {
    key += " " + name;
    for (const int64_t size : place.dims) key += "x" + std::to_string(size);
  }
  if (RuntimeCache* cache = context.settings.cache) {
    const std::lock_guard<std::mutex> lock(cache->mutex);
    if (!cache->compiled.insert(key).second) return true;
  }
  return stand_in_called("compile") == 0;
}

#ifdef STAND_IN_RTX
bool is_stream_capturable(Context* self, CUstream_st*) {
  self->is_capturable = stand_in_called("isStreamCapturable") == 0;
  return self->is_capturable;
}
#endif

bool enqueue(Context* self, CUstream_st* stream) {
  if (stand_in_called("enqueueV3")) return refuse(*self, "it cannot be enqueued, as the test wants it");
  const std::string what = missing(*self);
  if (!what.empty()) return refuse(*self, what);
  const bool is_captured = stand_in_captures(stream);
  if (is_captured && !self->is_settled)  // TensorRT says so: what it sets up for new shapes cannot be captured
    return refuse(*self, "new shapes are to run once before they are captured");
  if (is_captured && !self->is_capturable) return refuse(*self, "it was asked, and said that it cannot be captured");
  if (kIsRtx && is_captured && self->settings.specialization != Specialization::kEAGER)
    return refuse(*self, "kernels were to be specialised before they are captured");
  if (!self->is_settled && !compile(*self)) return refuse(*self, "the compiler fails, as the test wants it");
  const auto work = [plan = std::weak_ptr<const OnnxPlan>(self->engine.plan), alive = std::weak_ptr<int>(self->alive),
                     places = self->places, scratch = self->scratch] {
    const auto running = plan.lock();
    if (!running || !alive.lock()) throw std::runtime_error("a plan runs whose context was destroyed");
    if (!stand_in_holds(scratch, kScratchBytes)) throw std::runtime_error("a plan's device memory is none");
    std::memset(scratch, 0xEE, kScratchBytes);
    running->run(places);
  };
  int status = stand_in_submit(stream, kStandInKernel, work);
  if (!status && is_captured && stand_in_unsupported_node_is_due())
    status = stand_in_submit(stream, kStandInHost, [] {});
  if (status) return refuse(*self, "CUDA refuses it: " + std::to_string(status));
  self->is_settled = true;
  return true;
}

const Slot* context_slots() {
  static const auto table = [] {
    VTable<kContextName> made;
    made.set(&VExecutionContext::setOptimizationProfileAsync, &set_profile)
        .set(&VExecutionContext::setInputShape, &set_input_shape)
        .set(&VExecutionContext::setTensorAddress, &set_tensor_address)
        .set(&VExecutionContext::enqueueV3, &enqueue)
        .set(&VExecutionContext::setDeviceMemoryV2, &set_device_memory);
#ifdef STAND_IN_RTX
    made.set(&VExecutionContext::isStreamCapturable, &is_stream_capturable);
#endif
    return made;
  }();
  return table.slots();
}

}  // namespace

Context::Context(Engine& engine, const Settings& settings)
    : slots(context_slots()), engine(engine), settings(settings) {
  for (const auto& [name, input] : engine.plan->inputs) places[name].dims = input.dims;
  ++engine.contexts;
  if (settings.cache) ++settings.cache->contexts;
  stand_in_count("context", 1);
}

Context::~Context() {
  --engine.contexts;
  if (settings.cache) --settings.cache->contexts;
  stand_in_count("context", -1);
}

}  // namespace stand_in
