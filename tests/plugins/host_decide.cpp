// The decide kernels' logic for the host, with any number of threads, in either order: see test_decide_logic.py.
#include "decide.h"

extern "C" int host_decide(const float* confidence, float threshold, const int64_t* capacities, int capacity_count,
                           int batch, int count, int threads, int backwards, int* keep, int* slots, int* choice) {
  static dovit::DecideShared shared;
  dovit::HostTeam team{threads, backwards != 0};
  int largest = 0, staying;
  for (int image = 0; image < batch; ++image) {
    const int found = dovit::count_staying(team, staying, confidence + size_t(image) * count, count, threshold);
    if (found > largest) largest = found;
  }
  int capacity = 0;
  for (int image = 0; image < batch; ++image) {
    memset(&shared, 0x55, sizeof shared);  // a block's shared memory holds anything at first
    const size_t row = size_t(image) * count;
    uint32_t* keys = dovit::keys_of(shared, count, slots + row);
    const int own = dovit::make_keys(team, shared, confidence + row, count, threshold, keys);
    capacity = dovit::choose_capacity(team, shared, batch > 1 ? largest : own, capacities, capacity_count);
    *choice = shared.choice;
    dovit::decide_image(team, shared, keys, count, own, capacity, keep + size_t(image) * capacity, slots + row);
  }
  return capacity;
}

extern "C" void host_slots(const int* keep, int batch, int count, int capacity, int* slots) {
  for (int image = 0; image < batch; ++image)
    for (int token = 0; token < count; ++token)
      slots[size_t(image) * count + token] = dovit::slot_in(keep + size_t(image) * capacity, capacity, token);
}
