#include "cells.h"
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

// Blocks: cells, channels, images.
template <class T, int kCount>
__global__ void __launch_bounds__(kCellThreads) cells_kernel(const Gather<T> given, const CellGrid grid) {
  __shared__ int found[kCellThreads];
  const Gather<T> g = settled(given);
  BlockTeam team{kCellThreads};
  const int image = blockIdx.z, column = (blockIdx.y * kCellThreads + threadIdx.x) * kCount;
  const Cell cell = cell_at(grid, g.positions, blockIdx.x);
  const size_t row = size_t(image) * g.count;
  const T* tokens = g.tokens + (row + size_t(image + 1) * g.prefix) * g.channels + column;
  CellSums<kCount> sums;
  for (int first = 0; first < cell.size; first += kCellThreads) {
    const int end = min(cell.size - first, kCellThreads);
    team.each([&](int thread) {
      if (thread < end) found[thread] = found_at(g.index + row, g.slots + row, g.count, cell.position(first + thread));
    });
    if (column < g.channels) add_found<T, kCount>(tokens, g.channels, found, end, sums);
    __syncthreads();  // before the next round writes to `found`
  }
  if (column < g.channels) write_merged<T, kCount>(g, image, blockIdx.x, cell.size, column, sums);
}

int blocks_for(int threads, int of) { return (threads + of - 1) / of; }

template <class T>
cudaError_t launch(const Gather<T>& g, const CellGrid& cells, int batch, const float* sum_before, float* sum_after,
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
  if (g.cells > 0) {
    if (g.channels % kCount == 0) {
      const dim3 blocks(g.cells, blocks_for(g.channels / kCount, kCellThreads), batch);
      cells_kernel<T, kCount><<<blocks, kCellThreads, 0, stream>>>(g, cells);
    } else {
      const dim3 blocks(g.cells, blocks_for(g.channels, kCellThreads), batch);
      cells_kernel<T, 1><<<blocks, kCellThreads, 0, stream>>>(g, cells);
    }
  }
  return cudaGetLastError();
}

cudaError_t launch_gather(dovit_gather_args a, cudaStream_t stream) {
  const CellGrid grid{a.cell_side, a.columns};
  if (grid.side < 0) return cudaErrorInvalidValue;
  if (grid.side > 0 && (grid.columns <= 0 || a.positions % grid.columns != 0 || a.sum_before))
    return cudaErrorInvalidValue;
  const int cells = grid.count(a.positions);
  if (cells > a.prefix) return cudaErrorInvalidValue;
  return with_element(a.type, [&](auto element) {
    using T = decltype(element);
    const Gather<T> g{a.count,
                      a.capacity,
                      a.prefix,
                      a.channels,
                      a.positions,
                      cells,
                      static_cast<const T*>(a.tokens),
                      a.index,
                      a.slots,
                      static_cast<T*>(a.kept),
                      a.kept_index,
                      static_cast<T*>(a.full),
                      a.sum_before ? static_cast<float*>(a.scratch) : nullptr,
                      a.actual_count};
    return launch(g, grid, a.batch, a.sum_before, a.sum_after, a.stopped_before, a.stopped_after, stream);
  });
}

}  // namespace
}  // namespace dovit

DOVIT_KERNEL(gather)

extern "C" __attribute__((visibility("default"))) size_t dovit_gather_scratch_bytes(int32_t batch, int32_t count,
                                                                                    int32_t channels) {
  return size_t(batch) * dovit::tile_count(count) * channels * sizeof(float);
}
