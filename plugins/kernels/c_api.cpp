// The launchers for callers in other languages: the same arguments, with streams and types as plain values. Returns a
// cudaError_t.
#include "launch.h"

#define DOVIT_API extern "C" __attribute__((visibility("default")))

DOVIT_API int dovit_decide(const float* confidence, const float* threshold, const int* capacities, int capacity_count,
                           int batch, int count, int* staying, int* capacity, int* keep, int* slots, void* stream) {
  return dovit::launch_decide(confidence, threshold, capacities, capacity_count, batch, count, staying, capacity, keep,
                              slots, static_cast<cudaStream_t>(stream));
}

DOVIT_API size_t dovit_gather_scratch_bytes(int batch, int count, int channels) {
  return dovit::gather_scratch_bytes(batch, count, channels);
}

DOVIT_API int dovit_gather(int type, const void* tokens, const int* index, const int* slots, void* kept,
                           int* kept_index, void* full, const float* sum_before, float* sum_after, int stopped,
                           int batch, int count, int capacity, int prefix, int positions, int channels, void* scratch,
                           void* stream) {
  return dovit::launch_gather(static_cast<dovit::Type>(type), tokens, index, slots, kept, kept_index, full, sum_before,
                              sum_after, stopped, batch, count, capacity, prefix, positions, channels, scratch,
                              static_cast<cudaStream_t>(stream));
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
