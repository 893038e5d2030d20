#include "cuda_stream.h"

#include <cstdio>
#include <exception>

#include "cuda_capture.h"
#include "cuda_functions.h"

namespace stand_in {

namespace {

// Only after a failure: work that is still queued is dropped.
void drop(Lock& lock, const std::shared_ptr<Stream>& stream) {
  state().progress.wait(lock, [&] { return !stream->running; });
  stream->waiting.clear();
  stream->done = stream->queued;
}

void enqueue(Stream& stream, Work work) {
  stream.waiting.push_back(std::move(work));
  ++stream.queued;
}

std::shared_ptr<Event> event_of(CUevent handle) {
  auto event = state().events.find(handle);
  return event && event->context == current_context() ? event : nullptr;
}

}  // namespace

std::shared_ptr<Stream> stream_of(CUstream handle) {
  if (!handle || handle == CU_STREAM_LEGACY) {
    for (const Device& device : state().devices)
      if (device.context == current_context()) return device.default_stream;
    return nullptr;
  }
  auto stream = state().streams.find(handle);
  return stream && stream->context == current_context() ? stream : nullptr;
}

CUresult submit(CUstream handle, CUgraphNodeType type, Work work) {
  const auto stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) return record(*stream->capture, type, std::move(work));
  if (!stream->failed) enqueue(*stream, std::move(work));
  return stream->failed;
}

void run_until(Lock& lock, const std::shared_ptr<Stream>& stream, uint64_t count) {
  while (stream->done < count) {
    if (stream->running) {
      state().progress.wait(lock);
      continue;
    }
    Work work = std::move(stream->waiting.front());
    stream->waiting.pop_front();
    stream->running = true;
    const bool was_fine = stream->failed == CUDA_SUCCESS;
    bool is_fine = was_fine;
    lock.unlock();
    try {
      if (was_fine) work();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "stand-in GPU: %s\n", error.what());
      is_fine = false;
    }
    work = nullptr;  // without the mutex, which destructors of what it captured may lock
    lock.lock();
    if (was_fine && !is_fine) stream->failed = CUDA_ERROR_ILLEGAL_ADDRESS;
    stream->running = false;
    ++stream->done;
    state().progress.notify_all();
  }
}

void run_everything(Lock& lock) {
  std::vector<std::shared_ptr<Stream>> streams;
  for (const auto& [handle, stream] : state().streams.all()) streams.push_back(stream);
  for (const Device& device : state().devices) streams.push_back(device.default_stream);
  for (const auto& stream : streams) run_until(lock, stream, stream->queued);
}

CUresult stream_create(CUstream* handle, unsigned flags) {
  const Call call("cuStreamCreate", kContext);
  if (call.refused) return call.refused;
  if (flags & ~unsigned(CU_STREAM_NON_BLOCKING)) return CUDA_ERROR_INVALID_VALUE;
  auto stream = std::make_shared<Stream>();
  stream->context = current_context();
  *handle = state().streams.add(std::move(stream));
  return CUDA_SUCCESS;
}

// Queued work runs nevertheless.
CUresult stream_destroy(CUstream handle) {
  Call call("cuStreamDestroy", kContext, kAfterwards);
  if (call.refused) return call.refused;
  const auto stream = stream_of(handle);
  if (!stream || !state().streams.find(handle)) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  state().streams.remove(handle);
  run_until(call.lock, stream, stream->queued);
  return call.outcome;
}

CUresult stream_synchronize(CUstream handle) {
  Call call("cuStreamSynchronize", kContext, kAfterwards);
  if (call.refused) return call.refused;
  const auto stream = stream_of(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (call.outcome) {
    drop(call.lock, stream);
    return call.outcome;
  }
  run_until(call.lock, stream, stream->queued);
  return stream->failed;
}

CUresult stream_wait_event(CUstream handle, CUevent event_handle, unsigned flags) {
  const Call call("cuStreamWaitEvent", kContext);
  if (call.refused) return call.refused;
  const auto stream = stream_of(handle);
  const auto event = event_of(event_handle);
  if (!stream || !event) return CUDA_ERROR_INVALID_HANDLE;
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  if (stream->capture) {  // an event from outside, for within none is recorded: see event_record
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  if (!event->stream) return CUDA_SUCCESS;
  enqueue(*stream, [before = event->stream, count = event->after] {
    Lock lock(state().mutex);
    run_until(lock, before, count);
  });
  return stream->failed;
}

CUresult event_create(CUevent* handle, unsigned flags) {
  const Call call("cuEventCreate", kContext);
  if (call.refused) return call.refused;
  if (flags & ~unsigned(CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING)) return CUDA_ERROR_INVALID_VALUE;
  auto event = std::make_shared<Event>();
  event->context = current_context();
  *handle = state().events.add(std::move(event));
  return CUDA_SUCCESS;
}

CUresult event_destroy(CUevent handle) {
  const Call call("cuEventDestroy", kContext, kAfterwards);
  if (call.refused) return call.refused;
  if (!event_of(handle)) return CUDA_ERROR_INVALID_HANDLE;
  state().events.remove(handle);
  return call.outcome;
}

// CUDA can capture it to bring other streams into the graph; dovit does not, so here it is an error.
CUresult event_record(CUevent handle, CUstream stream_handle) {
  const Call call("cuEventRecord", kContext);
  if (call.refused) return call.refused;
  const auto stream = stream_of(stream_handle);
  const auto event = event_of(handle);
  if (!stream || !event) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  event->stream = stream;
  event->after = stream->queued;
  return stream->failed;
}

}  // namespace stand_in

int stand_in_submit(CUstream_st* stream, StandInNode type, const std::function<void()>& work) {
  static_assert(int(kStandInKernel) == CU_GRAPH_NODE_TYPE_KERNEL && int(kStandInHost) == CU_GRAPH_NODE_TYPE_HOST);
  const stand_in::Lock lock(stand_in::state().mutex);
  if (!stand_in::current_context()) return CUDA_ERROR_INVALID_CONTEXT;
  return stand_in::submit(stream, static_cast<CUgraphNodeType>(type), work);
}

bool stand_in_captures(CUstream_st* stream) {
  const stand_in::Lock lock(stand_in::state().mutex);
  const auto found = stand_in::stream_of(stream);
  return found && found->capture;
}
