// The launchers for callers in other languages: the same arguments, with streams and types as plain values. Returns a
// cudaError_t.
#include <algorithm>
#include <initializer_list>

#include "launch.h"
#include "resize_taps.h"

#define DOVIT_API extern "C" __attribute__((visibility("default")))

DOVIT_API int dovit_decide(const float* confidence, const float* threshold, const int64_t* capacities,
                           int capacity_count, int batch, int count, int* staying, int* keep, int* slots, int* capacity,
                           unsigned long long switch_handle, void* stream) {
  return dovit::launch_decide(confidence, threshold, capacities, capacity_count, batch, count, staying, keep, slots,
                              capacity, switch_handle, static_cast<cudaStream_t>(stream));
}

DOVIT_API int dovit_slots(const int* keep, int batch, int count, int capacity, int* slots, void* stream) {
  return dovit::launch_slots(keep, batch, count, capacity, slots, static_cast<cudaStream_t>(stream));
}

DOVIT_API size_t dovit_gather_scratch_bytes(int batch, int count, int channels) {
  return dovit::gather_scratch_bytes(batch, count, channels);
}

DOVIT_API int dovit_gather(int type, const void* tokens, const int* index, const int* slots, void* kept,
                           int* kept_index, void* full, const float* sum_before, float* sum_after,
                           const int64_t* stopped_before, int64_t* stopped_after, const int* actual_count, int batch,
                           int count, int capacity, int prefix, int positions, int channels, void* scratch,
                           void* stream) {
  return dovit::launch_gather(static_cast<dovit::Type>(type), tokens, index, slots, kept, kept_index, full, sum_before,
                              sum_after, stopped_before, stopped_after, actual_count, batch, count, capacity, prefix,
                              positions, channels, scratch, static_cast<cudaStream_t>(stream));
}

DOVIT_API int dovit_reconstruct(int type, const void* tokens, const int* index, void* full, int batch, int count,
                                int prefix, int positions, int channels, void* stream) {
  return dovit::launch_reconstruct(static_cast<dovit::Type>(type), tokens, index, full, batch, count, prefix, positions,
                                   channels, static_cast<cudaStream_t>(stream));
}

DOVIT_API int dovit_confidence(int type, const void* logits, float* confidence, int batch, int classes, int count,
                               void* stream) {
  return dovit::launch_confidence(static_cast<dovit::Type>(type), logits, confidence, batch, classes, count,
                                  static_cast<cudaStream_t>(stream));
}

DOVIT_API int dovit_labels(int type, const void* logits, void* labels, int batch, int classes, int height, int width,
                           int scale, void* stream) {
  return dovit::launch_labels(static_cast<dovit::Type>(type), logits, labels, batch, classes, height, width, scale,
                              static_cast<cudaStream_t>(stream));
}

DOVIT_API int dovit_resized_labels(int type, const void* logits, void* labels, int batch, int classes, int height,
                                   int width, int out_height, int out_width, void* stream) {
  return dovit::launch_resized_labels(static_cast<dovit::Type>(type), logits, labels, batch, classes, height, width,
                                      out_height, out_width, static_cast<cudaStream_t>(stream));
}

DOVIT_API int dovit_resize(const uint8_t* image, int height, int width, uint8_t* out, int out_height, int out_width,
                           const int* across, int across_width, const int* down, int down_width, uint8_t* scratch,
                           void* stream) {
  return dovit::launch_resize(image, height, width, out, out_height, out_width, across, across_width, down, down_width,
                              scratch, static_cast<cudaStream_t>(stream));
}

DOVIT_API int dovit_normalise(int type, const uint8_t* images, void* out, int batch, int height, int width,
                              const float* mean, const float* deviation, void* stream) {
  return dovit::launch_normalise(static_cast<dovit::Type>(type), images, out, batch, height, width, mean, deviation,
                                 static_cast<cudaStream_t>(stream));
}

// The weights of one direction for dovit_resize, on the host: call with null to learn how many ints there are.
DOVIT_API int dovit_resize_taps(int source, int target, int* taps, int* width) {
  const dovit::ResizeTaps made = dovit::resize_taps(source, target);
  *width = made.width;
  if (taps) {
    for (const auto* part : {&made.first, &made.count, &made.weights})
      taps = std::copy(part->begin(), part->end(), taps);
  }
  return static_cast<int>(made.first.size() + made.count.size() + made.weights.size());
}

// What a launcher's result means.
DOVIT_API const char* dovit_error_string(int status) { return cudaGetErrorString(static_cast<cudaError_t>(status)); }
