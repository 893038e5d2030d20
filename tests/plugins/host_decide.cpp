// The decide kernel's logic for the host, with any number of threads: see test_decide_logic.py.
#include "decide.h"

extern "C" int host_decide(const float* confidence, float threshold, const int* capacities, int capacity_count,
                           int batch, int count, int threads, int* keep, int* slots) {
  static dovit::DecideShared shared;
  dovit::HostTeam team{threads};
  int largest = 0;
  int staying[64];
  for (int image = 0; image < batch; ++image) {
    staying[image] = dovit::count_staying(team, shared, confidence + size_t(image) * count, count, threshold);
    if (staying[image] > largest) largest = staying[image];
  }
  const int capacity = dovit::capacity_for(largest, capacities, capacity_count);
  for (int image = 0; image < batch; ++image) {
    const size_t row = size_t(image) * count;
    dovit::decide_image(team, shared, confidence + row, count, threshold, staying[image], capacity, keep + row,
                        slots + row);
  }
  return capacity;
}
