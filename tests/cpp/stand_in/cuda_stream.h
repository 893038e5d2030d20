// Streams: queued work runs in order, in the thread that synchronizes.
#pragma once

#include <deque>
#include <thread>

#include "cuda_state.h"

namespace stand_in {

// A capture in progress on a stream.
struct Capture {
  std::shared_ptr<Graph> graph;
  CUgraph handle;
  bool is_own;  // it made the graph and returns it when it ends
  CUstreamCaptureMode mode;
  std::thread::id thread;
  cuuint64_t id;
  std::vector<CUgraphNode> last;  // what the next node comes after
  bool invalid = false;
};

struct Stream {
  CUcontext context;
  std::deque<Work> waiting;
  uint64_t queued = 0, done = 0;  // number of works queued, and of those done
  bool running = false;           // whether some thread runs the work after `done`
  CUresult failed = CUDA_SUCCESS;
  std::shared_ptr<Capture> capture;
};

struct Event {
  CUcontext context;
  std::shared_ptr<Stream> stream;  // where it was recorded last
  uint64_t after = 0;              // number of works that had been queued there by then
};

// The stream of a handle, if it is one of the current context; of null its default one, which here waits for no other.
std::shared_ptr<Stream> stream_of(CUstream handle);

// Queues or captures.
CUresult submit(CUstream handle, CUgraphNodeType type, Work work);

// Runs what is left of the first `count` works of a stream. Releases the mutex meanwhile.
void run_until(Lock& lock, const std::shared_ptr<Stream>& stream, uint64_t count);

// Runs what is queued on any stream, as CUDA may where memory is freed.
void run_everything(Lock& lock);

}  // namespace stand_in
