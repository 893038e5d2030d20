// What the token pass's kernels are called by: raw pointers to device memory, sizes, a stream. Every launcher returns
// the error of its launch and waits for nothing. Sizes: `batch` images, `count` tokens before a decision, `capacity`
// after it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace dovit {

// What tokens are made of.
enum class Type { kFloat, kHalf, kBfloat16 };

// Resizes one image [height, width, 3] to [out_height, out_width, 3] as Pillow does it bilinearly. `across` and `down`
// are the ResizeTaps of the two directions on the device: first, count and weights, one after the other, with *_width
// weights a pixel. `scratch` holds 3·max(height·out_width, out_height·width) bytes.
cudaError_t launch_resize(const uint8_t* image, int height, int width, uint8_t* out, int out_height, int out_width,
                          const int* across, int across_width, const int* down, int down_width, uint8_t* scratch,
                          cudaStream_t stream);

// Images [batch, height, width, 3] → (x − mean) / deviation [batch, 3, height, width]; mean and deviation [3] lie on
// the host.
cudaError_t launch_normalise(Type type, const uint8_t* images, void* out, int batch, int height, int width,
                             const float* mean, const float* deviation, cudaStream_t stream);

// The largest class probability of each token: logits [batch, classes, count] → confidence [batch, count] float32.
cudaError_t launch_confidence(Type type, const void* logits, float* confidence, int batch, int classes, int count,
                              cudaStream_t stream);

// Decides with one capacity for the whole batch: the smallest of `capacities` [capacity_count], ascending, that holds
// the most that any image keeps; with none, that number itself, and then every image of the batch must keep as many.
//   confidence [batch, count] float32
//   threshold [1] float32 and capacities int64 lie on the device too, so that a captured graph reads them anew
//   staying [batch] int32: scratch
//   keep int32, packed: image b's kept tokens are keep[b·capacity …), ascending; batch·count numbers always suffice
//   slots [batch, count] int32: each token's place among its image's kept ones, -1 where it does not stay
//   capacity [1] int32: the chosen one
//   switch_handle: 0, or a cudaGraphConditionalHandle, which is set to the number of the chosen capacity in
//   `capacities`, so that a SWITCH node of a captured graph runs the body of that capacity; toolkits before CUDA 12.4
//   return cudaErrorNotSupported for it
cudaError_t launch_decide(const float* confidence, const float* threshold, const int64_t* capacities,
                          int capacity_count, int batch, int count, int* staying, int* keep, int* slots, int* capacity,
                          unsigned long long switch_handle, cudaStream_t stream);

// The slots of launch_decide for callers that have only the list: keep [batch, capacity] → slots [batch, count].
cudaError_t launch_slots(const int* keep, int batch, int count, int capacity, int* slots, cudaStream_t stream);

// Bytes of scratch memory that launch_gather needs.
size_t gather_scratch_bytes(int batch, int count, int channels);

// Compacts the tokens that stay and writes the others to `full`, into their sum and into the class token.
//   tokens [batch, prefix + count, channels], index [batch, count] int32
//   slots [batch, count] int32 from launch_decide or launch_slots
//   kept [batch, prefix + capacity, channels], kept_index [batch, capacity] int32
//   full [batch, positions, channels], changed in place
//   sum_before, sum_after [batch, channels] float32, which may be the same: the sum of all that has stopped
//   stopped_before, stopped_after [1] int64, two places: how many tokens of each image that is;
//   stopped_after = stopped_before + count − capacity
//   actual_count: null, or [1] int32, the capacity that an earlier launch_decide chose: `count` is then the most that
//   it can be, and tensors with `count` in their shape are as large as it is, not larger
cudaError_t launch_gather(Type type, const void* tokens, const int* index, const int* slots, void* kept,
                          int* kept_index, void* full, const float* sum_before, float* sum_after,
                          const int64_t* stopped_before, int64_t* stopped_after, const int* actual_count, int batch,
                          int count, int capacity, int prefix, int positions, int channels, void* scratch,
                          cudaStream_t stream);

// Writes tokens [batch, prefix + count, channels] to full [batch, positions, channels] at index [batch, count].
cudaError_t launch_reconstruct(Type type, const void* tokens, const int* index, void* full, int batch, int count,
                               int prefix, int positions, int channels, cudaStream_t stream);

// The class of each pixel: logits [batch, classes, height, width] → labels [batch, height·scale, width·scale], uint8
// for at most 256 classes, else int16.
cudaError_t launch_labels(Type type, const void* logits, void* labels, int batch, int classes, int height, int width,
                          int scale, cudaStream_t stream);

// The same for labels [batch, out_height, out_width] of any size, of at most 65,535 rows.
cudaError_t launch_resized_labels(Type type, const void* logits, void* labels, int batch, int classes, int height,
                                  int width, int out_height, int out_width, cudaStream_t stream);

}  // namespace dovit
