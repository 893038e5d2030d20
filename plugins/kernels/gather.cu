#include "element.cuh"
#include "gather.h"

namespace dovit {
namespace {

constexpr int kThreads = 128;
constexpr int kMergeThreads = 32;  // there are few channels: small blocks, for many multiprocessors

// Blocks: channels, tiles, images.
template <class T, int kCount>
__global__ void __launch_bounds__(kThreads) gather_kernel(const Gather<T> given) {
  const Gather<T> g = settled(given);
  const int column = (blockIdx.x * kThreads + threadIdx.x) * kCount;
  if (column < g.channels) gather_column<T, kCount>(g, blockIdx.z, blockIdx.y, column);
}

template <class T>
__global__ void __launch_bounds__(kMergeThreads)
    merge_kernel(const Gather<T> given, const float* sum_before, float* sum_after, const int64_t* stopped_before,
                 int64_t* stopped_after) {
  const Gather<T> g = settled(given);
  const int channel = blockIdx.x * kMergeThreads + threadIdx.x;
  if (channel < g.channels) merge_channel(g, blockIdx.y, channel, sum_before, sum_after, stopped_before, stopped_after);
}

int blocks_for(int threads, int of) { return (threads + of - 1) / of; }

template <class T>
cudaError_t launch(const Gather<T>& g, int batch, const float* sum_before, float* sum_after,
                   const int64_t* stopped_before, int64_t* stopped_after, cudaStream_t stream) {
  constexpr int kCount = kGatherCount<T>;
  if (g.count > 0) {
    if (g.channels % kCount == 0) {
      const dim3 grid(blocks_for(g.channels / kCount, kThreads), tile_count(g.count), batch);
      gather_kernel<T, kCount><<<grid, kThreads, 0, stream>>>(g);
    } else {
      const dim3 grid(blocks_for(g.channels, kThreads), tile_count(g.count), batch);
      gather_kernel<T, 1><<<grid, kThreads, 0, stream>>>(g);
    }
  }
  const dim3 grid(blocks_for(g.channels, kMergeThreads), batch);
  merge_kernel<T><<<grid, kMergeThreads, 0, stream>>>(g, sum_before, sum_after, stopped_before, stopped_after);
  return cudaGetLastError();
}

}  // namespace

size_t gather_scratch_bytes(int batch, int count, int channels) {
  return size_t(batch) * tile_count(count) * channels * sizeof(float);
}

cudaError_t launch_gather(Type type, const void* tokens, const int* index, const int* slots, void* kept,
                          int* kept_index, void* full, const float* sum_before, float* sum_after,
                          const int64_t* stopped_before, int64_t* stopped_after, const int* actual_count, int batch,
                          int count, int capacity, int prefix, int positions, int channels, void* scratch,
                          cudaStream_t stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    const Gather<T> g{count,
                      capacity,
                      prefix,
                      channels,
                      positions,
                      static_cast<const T*>(tokens),
                      index,
                      slots,
                      static_cast<T*>(kept),
                      kept_index,
                      static_cast<T*>(full),
                      static_cast<float*>(scratch),
                      actual_count};
    return launch(g, batch, sum_before, sum_after, stopped_before, stopped_after, stream);
  });
}

}  // namespace dovit
