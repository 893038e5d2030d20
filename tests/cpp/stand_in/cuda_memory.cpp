// Device and pinned memory, both in host memory and poisoned when allocated; copies are checked against its bounds.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "cuda_capture.h"
#include "cuda_functions.h"

namespace stand_in {

namespace {

constexpr int kPoison = 0xFF;
constexpr size_t kAlignment = 256;

size_t free_bytes() {
  size_t taken = 0;
  for (const auto& [place, block] : state().memory) taken += block.pinned ? 0 : block.bytes;
  return state().free_bytes - std::min(taken, state().free_bytes);
}

// The allocation that an address lies in.
const std::pair<const uintptr_t, Block>* block_at(uintptr_t place) {
  const auto after = state().memory.upper_bound(place);
  if (after == state().memory.begin()) return nullptr;
  const auto& found = *std::prev(after);
  return place < found.first + found.second.bytes ? &found : nullptr;
}

bool fits(uintptr_t place, size_t bytes) {
  const auto* block = block_at(place);
  return block && bytes <= block->first + block->second.bytes - place;
}

bool is_device(uintptr_t place) {
  const auto* block = block_at(place);
  return block && !block->second.pinned;
}

void* allocate(size_t bytes, bool pinned) {
  void* place = nullptr;
  if (posix_memalign(&place, kAlignment, bytes)) throw std::bad_alloc();
  std::memset(place, kPoison, bytes);
  state().memory.emplace(reinterpret_cast<uintptr_t>(place), Block{bytes, pinned});
  return place;
}

CUresult release(Lock& lock, uintptr_t place, bool pinned) {
  if (const CUresult refused = refuse_in_capture()) return refused;
  const auto found = state().memory.find(place);
  if (found == state().memory.end() || found->second.pinned != pinned) return CUDA_ERROR_INVALID_VALUE;
  run_everything(lock);  // CUDA may wait here as well; nothing that was queued touches what was freed
  state().memory.erase(place);
  std::free(reinterpret_cast<void*>(place));
  return CUDA_SUCCESS;
}

// One side of a copy: rows of memory of a kind.
struct Side {
  uintptr_t place;
  size_t pitch;
  CUmemorytype type;
};

struct Copy {
  Side to, from;
  size_t width, height;
};

size_t extent(const Side& side, const Copy& copy) { return (copy.height - 1) * side.pitch + copy.width; }

bool is_sound(const Side& side, const Copy& copy) {
  if (side.pitch < copy.width && copy.height > 1) return false;
  const bool is_known = block_at(side.place) != nullptr;
  if (side.type == CU_MEMORYTYPE_HOST && is_device(side.place)) return false;
  if (side.type == CU_MEMORYTYPE_DEVICE && !is_known) return false;
  return side.place && (!is_known || fits(side.place, extent(side, copy)));
}

bool is_sound(const Copy& copy) {
  return is_sound(copy.to, copy) && is_sound(copy.from, copy) &&
         (is_device(copy.to.place) || is_device(copy.from.place));
}

CUresult submit_copy(CUstream stream, const Copy& copy) {
  if (copy.width == 0 || copy.height == 0) return CUDA_SUCCESS;
  if (!is_sound(copy)) return CUDA_ERROR_INVALID_VALUE;
  return submit(stream, CU_GRAPH_NODE_TYPE_MEMCPY, [copy] {
    {
      const Lock lock(state().mutex);
      if (!is_sound(copy)) throw std::runtime_error("a copy finds its memory freed");
    }
    for (size_t row = 0; row < copy.height; ++row)
      std::memmove(reinterpret_cast<void*>(copy.to.place + row * copy.to.pitch),
                   reinterpret_cast<const void*>(copy.from.place + row * copy.from.pitch), copy.width);
  });
}

Side side_of(CUmemorytype type, uintptr_t host, uintptr_t device, size_t pitch, size_t x, size_t y) {
  const uintptr_t place = type == CU_MEMORYTYPE_HOST ? host : device;
  return {place ? place + y * pitch + x : 0, pitch, type};
}

}  // namespace

CUresult mem_get_info(size_t* free, size_t* total) {
  const Call call("cuMemGetInfo", kContext);
  if (call.refused) return call.refused;
  *total = state().free_bytes;
  *free = free_bytes();
  return CUDA_SUCCESS;
}

CUresult mem_alloc(CUdeviceptr* place, size_t bytes) {
  const Call call("cuMemAlloc", kContext);
  if (call.refused) return call.refused;
  if (const CUresult refused = refuse_in_capture()) return refused;
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (bytes > free_bytes()) return CUDA_ERROR_OUT_OF_MEMORY;
  *place = reinterpret_cast<uintptr_t>(allocate(bytes, false));
  return CUDA_SUCCESS;
}

CUresult mem_free(CUdeviceptr place) {
  Call call("cuMemFree", kContext, kAfterwards);
  if (call.refused) return call.refused;
  const CUresult result = release(call.lock, place, false);
  return result ? result : call.outcome;
}

CUresult mem_host_alloc(void** place, size_t bytes, unsigned flags) {
  const Call call("cuMemHostAlloc", kContext);
  if (call.refused) return call.refused;
  if (const CUresult refused = refuse_in_capture()) return refused;
  if (bytes == 0 || flags & ~unsigned(CU_MEMHOSTALLOC_PORTABLE)) return CUDA_ERROR_INVALID_VALUE;
  *place = allocate(bytes, true);
  return CUDA_SUCCESS;
}

CUresult mem_free_host(void* place) {
  Call call("cuMemFreeHost", kContext, kAfterwards);
  if (call.refused) return call.refused;
  const CUresult result = release(call.lock, reinterpret_cast<uintptr_t>(place), true);
  return result ? result : call.outcome;
}

CUresult memcpy_async(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  const Call call("cuMemcpyAsync", kContext);
  if (call.refused) return call.refused;
  return submit_copy(stream, {{to, bytes, CU_MEMORYTYPE_UNIFIED}, {from, bytes, CU_MEMORYTYPE_UNIFIED}, bytes, 1});
}

CUresult memcpy_2d_async(const CUDA_MEMCPY2D* given, CUstream stream) {
  const Call call("cuMemcpy2DAsync", kContext);
  if (call.refused) return call.refused;
  const CUDA_MEMCPY2D& c = *given;
  if (c.srcMemoryType == CU_MEMORYTYPE_ARRAY || c.dstMemoryType == CU_MEMORYTYPE_ARRAY) return CUDA_ERROR_NOT_SUPPORTED;
  const Copy copy{
      side_of(c.dstMemoryType, reinterpret_cast<uintptr_t>(c.dstHost), c.dstDevice, c.dstPitch, c.dstXInBytes, c.dstY),
      side_of(c.srcMemoryType, reinterpret_cast<uintptr_t>(c.srcHost), c.srcDevice, c.srcPitch, c.srcXInBytes, c.srcY),
      c.WidthInBytes, c.Height};
  return submit_copy(stream, copy);
}

CUresult memset_d8_async(CUdeviceptr place, unsigned char value, size_t bytes, CUstream stream) {
  const Call call("cuMemsetD8Async", kContext);
  if (call.refused) return call.refused;
  if (bytes == 0) return CUDA_SUCCESS;
  if (!is_device(place) || !fits(place, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return submit(stream, CU_GRAPH_NODE_TYPE_MEMSET, [=] {
    if (!stand_in_holds(reinterpret_cast<void*>(place), bytes))
      throw std::runtime_error("a clearing finds its memory freed");
    std::memset(reinterpret_cast<void*>(place), value, bytes);
  });
}

}  // namespace stand_in

bool stand_in_holds(const void* place, size_t bytes) {
  const stand_in::Lock lock(stand_in::state().mutex);
  return stand_in::fits(reinterpret_cast<uintptr_t>(place), bytes);
}
