// Every kernel once on an emulated GPU, for ThreadSanitizer: two threads of a block that touch one place without a
// barrier between them end the program. Results are of no interest here.
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

extern "C" {
int dovit_decide(const float*, const float*, const int64_t*, int, int, int, int*, int*, int*, int*, unsigned long long,
                 void*);
int dovit_slots(const int*, int, int, int, int*, void*);
size_t dovit_gather_scratch_bytes(int, int, int);
int dovit_gather(int, const void*, const int*, const int*, void*, int*, void*, const float*, float*, const int64_t*,
                 int64_t*, const int*, int, int, int, int, int, int, void*, void*);
int dovit_reconstruct(int, const void*, const int*, void*, int, int, int, int, int, void*);
int dovit_confidence(int, const void*, float*, int, int, int, void*);
int dovit_labels(int, const void*, void*, int, int, int, int, int, void*);
int dovit_resized_labels(int, const void*, void*, int, int, int, int, int, int, void*);
}

int main() {
  std::mt19937 random(0);
  std::uniform_real_distribution<float> uniform(0.0F, 1.0F);
  const auto floats = [&](size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = uniform(random);
    return values;
  };
  int status = 0;
  for (const int count : {33, 989, 9000}) {  // the last one's keys lie in global memory
    for (const int batch : {1, 2}) {
      const auto q = floats(size_t(batch) * count);
      const float threshold = 0.5F;
      const int64_t capacities[] = {0, 2 * count / 3, count};
      std::vector<int> staying(batch), keep(q.size()), slots(q.size());
      int capacity = 0;
      uint32_t choice = 0;
      status |= dovit_decide(q.data(), &threshold, capacities, 3, batch, count, staying.data(), keep.data(),
                             slots.data(), &capacity, reinterpret_cast<unsigned long long>(&choice), nullptr);
      status |= dovit_slots(keep.data(), batch, count, capacity, slots.data(), nullptr);
      if (count > 1000) continue;
      const int channels = 40, prefix = 1;
      const auto tokens = floats(size_t(batch) * (prefix + count) * channels), sums = floats(size_t(batch) * channels);
      std::vector<float> full(size_t(batch) * count * channels), kept(tokens.size()), after(sums.size());
      std::vector<int> index(q.size()), kept_index(q.size());
      for (size_t k = 0; k < index.size(); ++k) index[k] = static_cast<int>(k % count);
      std::vector<char> scratch(dovit_gather_scratch_bytes(batch, count, channels));
      const int64_t stopped = 0;
      int64_t stopped_after = 0;
      status |= dovit_gather(0, tokens.data(), index.data(), slots.data(), kept.data(), kept_index.data(), full.data(),
                             sums.data(), after.data(), &stopped, &stopped_after, &count, batch, count, capacity,
                             prefix, count, channels, scratch.data(), nullptr);
      status |= dovit_reconstruct(0, kept.data(), kept_index.data(), full.data(), batch, capacity, prefix, count,
                                  channels, nullptr);
    }
  }
  for (const int classes : {3, 150}) {
    const auto logits = floats(size_t(classes) * 12 * 20);
    std::vector<float> confidence(12 * 20);
    std::vector<uint8_t> labels(12 * 20 * 64);
    status |= dovit_confidence(0, logits.data(), confidence.data(), 1, classes, 12 * 20, nullptr);
    status |= dovit_labels(0, logits.data(), labels.data(), 1, classes, 12, 20, 8, nullptr);
    status |= dovit_resized_labels(0, logits.data(), labels.data(), 1, classes, 12, 20, 90, 131, nullptr);
  }
  return status;
}
