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

cudaError_t launch_gather(dovit_gather_args a, cudaStream_t stream) {
  return with_element(a.type, [&](auto element) {
    using T = decltype(element);
    const Gather<T> g{a.count,
                      a.capacity,
                      a.prefix,
                      a.channels,
                      a.positions,
                      static_cast<const T*>(a.tokens),
                      a.index,
                      a.slots,
                      static_cast<T*>(a.kept),
                      a.kept_index,
                      static_cast<T*>(a.full),
                      a.sum_before ? static_cast<float*>(a.scratch) : nullptr,
                      a.actual_count};
    return launch(g, a.batch, a.sum_before, a.sum_after, a.stopped_before, a.stopped_after, stream);
  });
}

}  // namespace
}  // namespace dovit

DOVIT_KERNEL(gather)

extern "C" __attribute__((visibility("default"))) size_t dovit_gather_scratch_bytes(int32_t batch, int32_t count,
                                                                                    int32_t channels) {
  return size_t(batch) * dovit::tile_count(count) * channels * sizeof(float);
}
