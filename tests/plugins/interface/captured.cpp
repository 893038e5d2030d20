// The plugins on a GPU, called inside a captured CUDA graph: decide, gather, reconstruct, one launch, replayed with new
// inputs, against loops in float64. Exits with 77 where there is no GPU.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "library.h"

namespace {

using nvinfer1::DataType;

void must(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(status));
  std::exit(102);
}
#define MUST(call) must(call, #call)

// Device memory, poisoned where nothing was copied to it.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) {
    MUST(cudaMalloc(reinterpret_cast<void**>(&place_), std::max<size_t>(count, 1) * sizeof(T)));
    MUST(cudaMemset(place_, 0xff, count * sizeof(T)));
  }
  ~Buffer() { cudaFree(place_); }
  Buffer(const Buffer&) = delete;
  void put(const std::vector<T>& values) {
    MUST(cudaMemcpy(place_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  std::vector<T> get() const {
    std::vector<T> values(count_);
    MUST(cudaMemcpy(values.data(), place_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  T* place() const { return place_; }

 private:
  size_t count_;
  T* place_ = nullptr;
};

template <class T>
float number(T value) {
  return static_cast<float>(value);
}

enum class Merging { kClassToken, kCells, kNone };

template <class T>
void chain(Library& library, DataType type, double tolerance, Merging merging) {
  constexpr int kBatch = 2, kTokens = 989, kKept = 400, kPositions = 1100, kChannels = 72, kStopped = 111;
  constexpr int kColumns = 55, kSide = 4, kAcross = 14, kCells = 5 * kAcross;  // a grid of 20×55 patches
  const bool merge = merging == Merging::kClassToken, by_cell = merging == Merging::kCells;
  const int prefix = by_cell ? 1 + kCells : 1;
  const Plugin decide = make(library, "TokenDecide", {{"fixed_capacity", 1}});
  const Plugin gather =
      make(library, "TokenGather",
           {{"prefix", prefix}, {"merge", merge ? 1 : 0}, {"cell_side", by_cell ? kSide : 0}, {"columns", kColumns}});
  const Plugin reconstruct = make(library, "TokenReconstruct", {{"prefix", prefix}});

  Buffer<float> confidence(kBatch * kTokens), threshold(1), sum(kBatch * kChannels), new_sum(kBatch * kChannels);
  Buffer<int64_t> capacities(3), stopped(1), new_stopped(1);
  Buffer<int> keep(kBatch * kTokens), capacity(1), index(kBatch * kTokens), new_index(kBatch * kKept);
  Buffer<T> tokens(kBatch * (prefix + kTokens) * kChannels), new_tokens(kBatch * (prefix + kKept) * kChannels);
  Buffer<T> full(kBatch * kPositions * kChannels), new_full(kBatch * kPositions * kChannels);
  Buffer<T> whole(kBatch * kPositions * kChannels);

  const auto ints = DataType::kINT32;
  const std::vector<nvinfer1::PluginTensorDesc> decide_in{desc(DataType::kFLOAT, {kBatch, kTokens}),
                                                          desc(DataType::kFLOAT, {}), desc(DataType::kINT64, {3})};
  const std::vector<nvinfer1::PluginTensorDesc> decide_out{desc(ints, {kBatch, kTokens}), desc(ints, {})};
  const std::vector<nvinfer1::PluginTensorDesc> gather_in{desc(type, {kBatch, prefix + kTokens, kChannels}),
                                                          desc(ints, {kBatch, kTokens}),
                                                          desc(type, {kBatch, kPositions, kChannels}),
                                                          desc(DataType::kFLOAT, {kBatch, kChannels}),
                                                          desc(DataType::kINT64, {1}),
                                                          desc(ints, {kBatch, kKept})};
  const std::vector<nvinfer1::PluginTensorDesc> gather_out{
      desc(type, {kBatch, prefix + kKept, kChannels}), desc(ints, {kBatch, kKept}),
      desc(type, {kBatch, kPositions, kChannels}), desc(DataType::kFLOAT, {kBatch, kChannels}),
      desc(DataType::kINT64, {1})};
  const std::vector<nvinfer1::PluginTensorDesc> reconstruct_in{gather_out[2], gather_out[0], gather_out[1]};
  const std::vector<nvinfer1::PluginTensorDesc> reconstruct_out{gather_out[2]};

  const auto scratch = [](const Plugin& plugin, const std::vector<nvinfer1::PluginTensorDesc>& inputs) {
    std::vector<nvinfer1::DynamicPluginTensorDesc> dynamic;
    for (const auto& tensor : inputs) dynamic.push_back({tensor, tensor.dims, tensor.dims, tensor.dims});
    return plugin.build()->getWorkspaceSize(dynamic.data(), static_cast<int32_t>(dynamic.size()), nullptr, 0);
  };
  Buffer<char> workspace(std::max(scratch(decide, decide_in), scratch(gather, gather_in)));

  capacities.put({0, kKept, kTokens});
  threshold.put({0.5F});
  stopped.put({kStopped});

  cudaStream_t stream;
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaGraph_t graph;
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  const auto call = [&](const Plugin& plugin, const auto& in_descs, const auto& out_descs,
                        const std::vector<const void*>& from, const std::vector<void*>& to) {
    CHECK_EQUAL(plugin.runtime()->onShapeChange(in_descs.data(), static_cast<int32_t>(in_descs.size()),
                                                out_descs.data(), static_cast<int32_t>(out_descs.size())),
                0);
    CHECK_EQUAL(
        plugin.runtime()->enqueue(in_descs.data(), out_descs.data(), from.data(), to.data(), workspace.place(), stream),
        0);
  };
  call(decide, decide_in, decide_out, {confidence.place(), threshold.place(), capacities.place()},
       {keep.place(), capacity.place()});
  call(gather, gather_in, gather_out,
       {tokens.place(), index.place(), full.place(), sum.place(), stopped.place(), keep.place()},
       {new_tokens.place(), new_index.place(), new_full.place(), new_sum.place(), new_stopped.place()});
  call(reconstruct, reconstruct_in, reconstruct_out, {new_full.place(), new_tokens.place(), new_index.place()},
       {whole.place()});
  MUST(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t launchable;
  MUST(cudaGraphInstantiate(&launchable, graph, 0));

  std::mt19937 random(7);
  for (int round = 0; round < 3; ++round) {
    std::uniform_real_distribution<float> uniform(0.0F, 1.0F);
    std::normal_distribution<float> normal;
    std::vector<float> q(kBatch * kTokens), before(kBatch * kChannels);
    // at most 400 of 989 stay: a third on average
    for (float& value : q) value = uniform(random) < 0.33F ? 0.5F * uniform(random) : 0.5F + 0.5F * uniform(random);
    for (float& value : before) value = normal(random);
    std::vector<T> given(kBatch * (prefix + kTokens) * kChannels), latest(kBatch * kPositions * kChannels);
    for (T& value : given) value = T(normal(random));
    for (T& value : latest) value = T(normal(random));
    std::vector<int> positions;
    for (int image = 0; image < kBatch; ++image) {
      std::vector<int> all(kPositions);
      std::iota(all.begin(), all.end(), 0);
      std::shuffle(all.begin(), all.end(), random);
      std::sort(all.begin(), all.begin() + kTokens);
      positions.insert(positions.end(), all.begin(), all.begin() + kTokens);
    }
    confidence.put(q), tokens.put(given), full.put(latest), sum.put(before), index.put(positions);
    MUST(cudaGraphLaunch(launchable, stream));
    MUST(cudaStreamSynchronize(stream));

    CHECK_EQUAL(capacity.get()[0], kKept);
    CHECK_EQUAL(new_stopped.get()[0], kStopped + kTokens - kKept);
    const auto kept = keep.get(), kept_index = new_index.get();
    const auto found_tokens = new_tokens.get(), found_full = new_full.get(), found_whole = whole.get();
    const auto found_sum = new_sum.get();
    for (int image = 0; image < kBatch; ++image) {
      std::vector<int> order(kTokens);
      std::iota(order.begin(), order.end(), 0);
      const auto rank = [&](int token) {
        const float value = q[image * kTokens + token];
        return value > 0.5F ? value : -1.0F;
      };
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return rank(a) < rank(b); });
      std::sort(order.begin(), order.begin() + kKept);
      std::vector<T> expected_full(latest.begin() + image * kPositions * kChannels,
                                   latest.begin() + (image + 1) * kPositions * kChannels);
      std::vector<double> sums(before.begin() + image * kChannels, before.begin() + (image + 1) * kChannels);
      const T* rows = given.data() + (image * (prefix + kTokens) + prefix) * kChannels;
      const T* out = found_tokens.data() + (image * (prefix + kKept) + prefix) * kChannels;
      int wrong = 0, slot = 0;
      for (int token = 0; token < kTokens; ++token) {
        const int position = positions[image * kTokens + token];
        const bool stays = slot < kKept && order[slot] == token;
        if (stays) {
          wrong += kept[image * kKept + slot] != token || kept_index[image * kKept + slot] != position;
          for (int c = 0; c < kChannels; ++c)
            wrong += number(out[slot * kChannels + c]) != number(rows[token * kChannels + c]);
          ++slot;
        } else {
          for (int c = 0; c < kChannels; ++c) {
            expected_full[position * kChannels + c] = rows[token * kChannels + c];
            if (merge) sums[c] += number(rows[token * kChannels + c]);
          }
        }
      }
      const auto same = [&](const std::vector<T>& found) {
        int count = 0;
        for (int k = 0; k < kPositions * kChannels; ++k)
          count += number(found[image * kPositions * kChannels + k]) != number(expected_full[k]);
        return count;
      };
      CHECK_EQUAL(wrong, 0);
      CHECK_EQUAL(same(found_full), 0);
      for (int k = 0; k < kKept; ++k)
        std::copy_n(rows + order[k] * kChannels, kChannels,
                    expected_full.begin() + positions[image * kTokens + order[k]] * kChannels);
      CHECK_EQUAL(same(found_whole), 0);
      double worst = 0.0, worst_sum = 0.0;
      for (int c = 0; c < kChannels; ++c) {
        const double class_token = number(given[image * (prefix + kTokens) * kChannels + c]);
        const double mean = sums[c] / (kStopped + kTokens - kKept);
        const double merged = merge ? 0.5 * (class_token + mean) : class_token;
        worst = std::max(worst, std::fabs(merged - number(found_tokens[image * (prefix + kKept) * kChannels + c])));
        worst_sum = std::max(worst_sum, std::fabs(sums[c] - found_sum[image * kChannels + c]));
      }
      if (by_cell) {
        std::vector<double> left(kCells), stopping(kCells), total(kCells * kChannels);
        const auto cell_of = [](int position) {
          return position / kColumns / kSide * kAcross + position % kColumns / kSide;
        };
        for (int token = 0, next = 0; token < kTokens; ++token) {
          const int cell = cell_of(positions[image * kTokens + token]);
          ++left[cell];
          if (next < kKept && order[next] == token) {
            ++next;
            continue;
          }
          ++stopping[cell];
          for (int c = 0; c < kChannels; ++c) total[cell * kChannels + c] += number(rows[token * kChannels + c]);
        }
        for (int cell = 0; cell < kCells; ++cell) {
          const int width = std::min(kSide, kColumns - cell % kAcross * kSide);
          const double stopped_before = width * kSide - left[cell];
          const double after = std::max(stopped_before + stopping[cell], 1.0);
          for (int c = 0; c < kChannels; ++c) {
            const double old = number(given[(image * (prefix + kTokens) + 1 + cell) * kChannels + c]);
            const double found = number(found_tokens[(image * (prefix + kKept) + 1 + cell) * kChannels + c]);
            const double merged = (stopped_before * old + total[cell * kChannels + c]) / after;
            worst = std::max(worst, std::fabs(merged - found));
          }
        }
      }
      CHECK(worst <= tolerance);
      CHECK(worst_sum <= 1e-3);
    }
  }
  MUST(cudaGraphExecDestroy(launchable));
  MUST(cudaGraphDestroy(graph));
  MUST(cudaStreamDestroy(stream));
}

}  // namespace

int main(int, char** arguments) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no GPU\n");
    return 77;
  }
  Library library(arguments[1]);
  for (const Merging merging : {Merging::kClassToken, Merging::kCells, Merging::kNone}) {
    chain<float>(library, DataType::kFLOAT, 1e-5, merging);
    chain<__half>(library, DataType::kHALF, 2e-3, merging);
    chain<__nv_bfloat16>(library, DataType::kBF16, 2e-2, merging);
  }
  return verdict();
}
