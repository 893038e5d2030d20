// Every kernel once on an emulated GPU, for ThreadSanitizer: two threads of a block that touch one place without a
// barrier between them end the program. Results are not compared here.
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "dovit_kernels.h"

namespace {

template <class Args>
int run(int (*kernel)(const Args*, void*), Args args) {
  args.size = sizeof args;
  return kernel(&args, nullptr);
}

}  // namespace

int main() {
  std::mt19937 random(0);
  std::uniform_real_distribution<float> uniform(0.0F, 1.0F);
  const auto floats = [&](size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = uniform(random);
    return values;
  };
  int status = 0;
  constexpr int batch = 2;
  for (const int count : {33, 300, 989, 9000}) {  // the last one's keys lie in global memory
    {
      const auto q = floats(size_t(batch) * count);
      const float threshold = 0.5F;
      const int64_t capacities[] = {0, 2 * count / 3, count};
      std::vector<int> staying(batch), keep(q.size()), slots(q.size());
      int capacity = 0;
      uint32_t choice = 0;
      status |= run(dovit_decide,
                    dovit_decide_args{0, q.data(), &threshold, capacities, 3, batch, count, staying.data(), keep.data(),
                                      slots.data(), &capacity, reinterpret_cast<uint64_t>(&choice)});
      status |= run(dovit_slots, dovit_slots_args{0, keep.data(), batch, count, capacity, slots.data()});
      if (count > 300) continue;  // more tokens are more blocks of the same work
      const int channels = 40, prefix = 1;
      const auto tokens = floats(size_t(batch) * (prefix + count) * channels), sums = floats(size_t(batch) * channels);
      std::vector<float> full(size_t(batch) * count * channels), kept(tokens.size()), after(sums.size());
      std::vector<int> index(q.size()), kept_index(q.size());
      for (size_t k = 0; k < index.size(); ++k) index[k] = static_cast<int>(k % count);
      std::vector<char> scratch(dovit_gather_scratch_bytes(batch, count, channels));
      const int64_t stopped = 0;
      int64_t stopped_after = 0;
      status |= run(dovit_gather, dovit_gather_args{0,
                                                    0,
                                                    tokens.data(),
                                                    index.data(),
                                                    slots.data(),
                                                    kept.data(),
                                                    kept_index.data(),
                                                    full.data(),
                                                    sums.data(),
                                                    after.data(),
                                                    &stopped,
                                                    &stopped_after,
                                                    &count,
                                                    batch,
                                                    count,
                                                    capacity,
                                                    prefix,
                                                    count,
                                                    channels,
                                                    /*cell_side=*/0,
                                                    /*columns=*/0,
                                                    scratch.data()});
      for (const int side : {2, count}) {  // cells that are looked up in one round, and in several
        const int columns = count % 3 == 0 ? 3 : 1, down = (count / columns + side - 1) / side;
        const int cells = down * ((columns + side - 1) / side);
        const auto given = floats(size_t(batch) * (cells + count) * channels);
        std::vector<float> merged(given.size());
        status |= run(dovit_gather, dovit_gather_args{0,
                                                      0,
                                                      given.data(),
                                                      index.data(),
                                                      slots.data(),
                                                      merged.data(),
                                                      kept_index.data(),
                                                      full.data(),
                                                      nullptr,
                                                      nullptr,
                                                      &stopped,
                                                      &stopped_after,
                                                      &count,
                                                      batch,
                                                      count,
                                                      capacity,
                                                      /*prefix=*/cells,
                                                      count,
                                                      channels,
                                                      side,
                                                      columns,
                                                      nullptr});
      }
      status |= run(dovit_reconstruct, dovit_reconstruct_args{0, 0, kept.data(), kept_index.data(), full.data(), batch,
                                                              capacity, prefix, count, channels});
    }
  }
  for (const int classes : {3, 150}) {
    const auto logits = floats(size_t(classes) * 12 * 20);
    std::vector<float> confidence(12 * 20);
    std::vector<uint8_t> labels(12 * 20 * 64);
    status |= run(dovit_confidence, dovit_confidence_args{0, 0, logits.data(), confidence.data(), 1, classes, 12 * 20});
    status |= run(dovit_labels, dovit_labels_args{0, 0, logits.data(), labels.data(), 1, classes, 12, 20, 8});
    status |= run(dovit_resized_labels,
                  dovit_resized_labels_args{0, 0, logits.data(), labels.data(), 1, classes, 12, 20, 90, 131});
  }
  return status;
}
