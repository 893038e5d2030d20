#include "cuda_state.h"

#include <cstdlib>

#include "cuda_graph.h"
#include "cuda_stream.h"

namespace stand_in {

State& state() {
  static auto* only = new State;  // never destroyed: other libraries' objects outlive static ones
  return *only;
}

namespace {

// A CUresult where a test has chosen this call to fail.
CUresult count(const std::string& function) {
  State& s = state();
  ++s.calls[function];
  const auto failing = s.failing.find(function);
  if (failing == s.failing.end()) return CUDA_SUCCESS;
  const bool always = failing->second < 0;
  if (!always && --failing->second > 0) return CUDA_SUCCESS;
  if (!always) s.failing.erase(failing);
  return CUDA_ERROR_ILLEGAL_ADDRESS;
}

}  // namespace

Call::Call(const char* function, Needs needs, Fails fails) : lock(state().mutex) {
  (fails == kBefore ? refused : outcome) = count(function);
  if (refused) return;
  if (needs != kNothing && !state().initialised)
    refused = CUDA_ERROR_NOT_INITIALIZED;
  else if (needs == kContext && !current_context())
    refused = CUDA_ERROR_INVALID_CONTEXT;
}

}  // namespace stand_in

using namespace stand_in;

void stand_in_configure(int devices, int driver_version, int capability_major, int capability_minor,
                        size_t free_bytes) {
  const Lock lock(state().mutex);
  State& s = state();
  s.device_count = devices;
  s.driver_version = driver_version;
  s.capability_major = capability_major;
  s.capability_minor = capability_minor;
  s.free_bytes = free_bytes;
}

void stand_in_fail(const char* function, int nth) {
  const Lock lock(state().mutex);
  state().failing[function] = nth;
}

void stand_in_add_unsupported_node(int nth) {
  const Lock lock(state().mutex);
  state().until_unsupported = nth;
}

int stand_in_calls(const char* function) {
  const Lock lock(state().mutex);
  return state().calls[function];
}

void stand_in_reset_calls() {
  const Lock lock(state().mutex);
  state().calls.clear();
}

int stand_in_alive(const char* kind) {
  const Lock lock(state().mutex);
  const State& s = state();
  const std::string what = kind;
  int count = 0;
  if (what == "memory" || what == "pinned") {
    for (const auto& [place, block] : s.memory) count += block.pinned == (what == "pinned");
    return count;
  }
  if (what == "graph") {
    for (const auto& [handle, graph] : s.graphs.all()) count += graph->parent == nullptr;
    return count;
  }
  if (what == "primary") {
    for (const Device& device : s.devices) count += device.retained;
    return count;
  }
  if (what == "stream") return static_cast<int>(s.streams.all().size());
  if (what == "event") return static_cast<int>(s.events.all().size());
  if (what == "exec") return static_cast<int>(s.execs.all().size());
  if (what != "context" && what != "engine" && what != "runtime" && what != "cache") return -1;
  const auto other = s.others_alive.find(what);
  return other == s.others_alive.end() ? 0 : other->second;
}

void stand_in_reset() {
  State fresh;
  const Lock lock(state().mutex);
  State& s = state();
  s.streams.clear();
  s.events.clear();
  s.execs.clear();
  s.nodes.clear();
  s.graphs.clear();
  for (const auto& [place, block] : s.memory) std::free(reinterpret_cast<void*>(place));
  s.memory.clear();
  s.device_count = fresh.device_count;
  s.driver_version = fresh.driver_version;
  s.capability_major = fresh.capability_major;
  s.capability_minor = fresh.capability_minor;
  s.free_bytes = fresh.free_bytes;
  s.initialised = false;
  ++s.resets;
  s.devices.clear();
  s.calls.clear();
  s.failing.clear();
  s.others_alive.clear();
  s.until_unsupported = 0;
}

int stand_in_called(const char* function) {
  const Lock lock(state().mutex);
  return count(function);
}

bool stand_in_has_context() {
  const Lock lock(state().mutex);
  return current_context() != nullptr;
}

bool stand_in_unsupported_node_is_due() {
  const Lock lock(state().mutex);
  return state().until_unsupported > 0 && --state().until_unsupported == 0;
}

void stand_in_count(const char* kind, int change) {
  const Lock lock(state().mutex);
  state().others_alive[kind] += change;
}
