// The gather and reconstruct kernels' logic for the host: every block and thread of their grids, one after the other.
#include "gather.h"
#include "reconstruct.h"

namespace {

template <class T, int kCount>
void gather(const dovit::Gather<T>& launched, int batch, const float* before, float* after,
            const int64_t* stopped_before, int64_t* stopped_after) {
  const dovit::Gather<T> g = dovit::settled(launched);
  for (int image = 0; image < batch; ++image) {
    for (int tile = 0; tile < dovit::tile_count(launched.count); ++tile)
      for (int column = 0; column < g.channels; column += kCount)
        dovit::gather_column<T, kCount>(g, image, tile, column);
    for (int channel = 0; channel < g.channels; ++channel)
      dovit::merge_channel(g, image, channel, before, after, stopped_before, stopped_after);
  }
}

template <class T>
void gather_any(const void* tokens, const int* index, const int* slots, void* kept, int* kept_index, void* full,
                const float* before, float* after, const int64_t* stopped_before, int64_t* stopped_after,
                const int* actual_count, int batch, int count, int capacity, int prefix, int positions, int channels,
                float* scratch) {
  const dovit::Gather<T> g{count,
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
                           scratch,
                           actual_count};
  if (channels % dovit::kGatherCount<T> == 0) {
    gather<T, dovit::kGatherCount<T>>(g, batch, before, after, stopped_before, stopped_after);
  } else {
    gather<T, 1>(g, batch, before, after, stopped_before, stopped_after);
  }
}

template <class T, int kCount>
void reconstruct(const T* tokens, const int* index, T* full, int batch, int count, int prefix, int positions,
                 int channels) {
  constexpr int kThreads = 32, kPacks = kThreads * dovit::kPacksAhead;
  const int packs = count * (channels / kCount);
  for (int image = 0; image < batch; ++image)
    for (int block = 0; block * kPacks < packs; ++block)
      for (int first = block * kPacks; first < block * kPacks + kThreads && first < packs; ++first)
        dovit::reconstruct_packs<T, kCount>(tokens, index, full, image, first, kThreads, count, prefix, positions,
                                            channels);
}

template <class T>
void reconstruct_any(const void* tokens, const int* index, void* full, int batch, int count, int prefix, int positions,
                     int channels) {
  const T* from = static_cast<const T*>(tokens);
  T* to = static_cast<T*>(full);
  if (channels % dovit::kPackCount<T> == 0) {
    reconstruct<T, dovit::kPackCount<T>>(from, index, to, batch, count, prefix, positions, channels);
  } else {
    reconstruct<T, 1>(from, index, to, batch, count, prefix, positions, channels);
  }
}

}  // namespace

extern "C" void host_gather(int half, const void* tokens, const int* index, const int* slots, void* kept,
                            int* kept_index, void* full, const float* before, float* after,
                            const int64_t* stopped_before, int64_t* stopped_after, const int* actual_count, int batch,
                            int count, int capacity, int prefix, int positions, int channels, float* scratch) {
  const auto go = half ? gather_any<_Float16> : gather_any<float>;
  go(tokens, index, slots, kept, kept_index, full, before, after, stopped_before, stopped_after, actual_count, batch,
     count, capacity, prefix, positions, channels, scratch);
}

extern "C" void host_reconstruct(int half, const void* tokens, const int* index, void* full, int batch, int count,
                                 int prefix, int positions, int channels) {
  const auto go = half ? reconstruct_any<_Float16> : reconstruct_any<float>;
  go(tokens, index, full, batch, count, prefix, positions, channels);
}
