// The whole state of the stand-in for libcuda, under one mutex.
//
// Handles are numbers that are never used twice, not addresses, so that use after free is detected.
#pragma once

#include <cudaTypedefs.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "stand_in.h"

namespace stand_in {

using Work = std::function<void()>;
using Lock = std::unique_lock<std::mutex>;

struct Stream;
struct Event;
struct Graph;
struct Node;
struct Exec;

template <class Handle>
Handle new_handle() {
  static_assert(sizeof(Handle) == sizeof(uintptr_t));
  static uintptr_t last = 0x10000;  // under the lock; apart from CU_STREAM_LEGACY and its like
  return reinterpret_cast<Handle>(last += 16);
}

// Objects that have not been destroyed, by handle.
template <class Handle, class T>
class Table {
 public:
  Handle add(std::shared_ptr<T> object) {
    const auto handle = new_handle<Handle>();
    objects_.emplace(handle, std::move(object));
    return handle;
  }
  std::shared_ptr<T> find(Handle handle) const {
    const auto at = objects_.find(handle);
    return at == objects_.end() ? nullptr : at->second;
  }
  void remove(Handle handle) { objects_.erase(handle); }
  const std::map<Handle, std::shared_ptr<T>>& all() const { return objects_; }
  void clear() { objects_.clear(); }

 private:
  std::map<Handle, std::shared_ptr<T>> objects_;
};

struct Block {
  size_t bytes;
  bool pinned;
};

struct Device {
  CUcontext context;
  std::shared_ptr<Stream> default_stream;  // the null one
  int retained = 0;
};

struct State {
  std::mutex mutex;
  std::condition_variable progress;  // work of some stream has ended

  int device_count = 1, driver_version = 13000, capability_major = 8, capability_minor = 9;
  size_t free_bytes = size_t(1) << 40;
  bool initialised = false;
  unsigned resets = 0;
  std::vector<Device> devices;

  std::map<uintptr_t, Block> memory;
  Table<CUstream, Stream> streams;
  Table<CUevent, Event> events;
  Table<CUgraph, Graph> graphs;
  Table<CUgraphNode, Node> nodes;
  Table<CUgraphExec, Exec> execs;

  std::map<std::string, int> calls, failing, others_alive;
  int until_unsupported = 0;
};

State& state();

// The context that the calling thread works in, or null.
CUcontext current_context();

enum Needs { kNothing, kDriver, kContext };  // a driver that was initialised, and a current context
enum Fails { kBefore, kAfterwards };         // what a function that frees does all the same

// Every function of CUDA begins with one. It counts the call and holds the lock.
struct Call {
  Call(const char* function, Needs needs, Fails fails = kBefore);
  Lock lock;
  CUresult refused = CUDA_SUCCESS;  // where it is not to go on
  CUresult outcome = CUDA_SUCCESS;  // what it returns in the end, if nothing else is wrong
};

}  // namespace stand_in
