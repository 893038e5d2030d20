// A model with arbitrary outputs: wrong_engines RUNS SEED. Engines make what a real model would, and then change
// types, ranks, sizes, counts, indices, labels, or leave an output out. Every run ends in a result or in one sentence;
// what is read or written out of place, AddressSanitizer shows.
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>

#include "bundle/check.h"
#include "chain/chain.h"
#include "errors.h"
#include "expect.h"
#include "session/session.h"

using namespace dovit::runtime;

namespace {

constexpr int64_t kHeight = 4, kWidth = 6, kTokens = kHeight * kWidth, kChannels = 3, kClasses = 5;

// Three blocks of a model with a prefix token and one tap: 24 tokens of a pixel each.
Manifest manifest_of_three_blocks() {
  const std::string tokens[] = {"tokens1", "tokens2", "tokens3"}, index[] = {"index0", "index1", "index2"},
                    full[] = {"full0", "full1", "full2"}, q[] = {"confidence1", "confidence2"},
                    keep[] = {"keep1", "keep2"}, xi[] = {"threshold1", "threshold2"};
  const Dimension length[] = {kTokens + 1, "length1", "length2"}, left[] = {kTokens, "kept1", "kept2"};
  const auto state = [&](int k) {
    return std::vector<TensorSpec>{{tokens[k], {"float32"}, {"batch", length[k], kChannels}},
                                   {index[k], {"int32"}, {"batch", left[k]}},
                                   {full[k], {"float32"}, {"batch", kTokens, kChannels}}};
  };
  Manifest m;
  m.image_size = {kHeight, kWidth};
  m.patch = m.prefix = 1;
  m.embed_dim = kChannels;
  m.classes = kClasses;
  m.slide_stride = {3, 4};
  m.std = {1, 1, 1};
  m.thresholds = {0.5, 0.5};
  m.capacities = {0, 4, 12, kTokens};
  for (int k = 0; k < 3; ++k) {
    Step step;
    step.name = k ? "block" + std::to_string(k + 1) : "stem";
    step.inputs = k ? state(k - 1) : std::vector<TensorSpec>{{"image", {"uint8"}, {"batch", kHeight, kWidth, 3}}};
    if (k) step.inputs.push_back({keep[k - 1], {"int32"}, {"batch", left[k]}});
    step.outputs = state(k);
    if (k < 2) {
      step.inputs.push_back({xi[k], {"float32"}, {}});
      step.inputs.push_back({"capacities", {"int64"}, {"capacities"}});
      step.outputs.push_back({q[k], {"float32"}, {"batch", left[k]}});
      step.outputs.push_back({keep[k], {"int32"}, {"batch", left[k + 1]}});
      m.decisions.push_back({k + 1, {tokens[k], index[k], full[k]}, xi[k], q[k], keep[k]});
    }
    if (k == 1) step.outputs.push_back({"tap", {"float32"}, {"batch", kTokens, kChannels}});
    m.steps.push_back(step);
  }
  Step decoder;
  decoder.name = "decoder";
  decoder.inputs = state(2);
  decoder.inputs.push_back({"tap", {"float32"}, {"batch", kTokens, kChannels}});
  decoder.outputs = {{"labels", {"uint8"}, {"batch", kHeight, kWidth}},
                     {"logits", {"float32"}, {"batch", kClasses, 2, 3}}};
  m.steps.push_back(decoder);
  m.final = {tokens[2], index[2], full[2]};
  m.taps = {"tap"};
  return m;
}

using Random = std::mt19937;

int64_t below(Random& random, int64_t count) { return static_cast<int64_t>(random() % static_cast<uint64_t>(count)); }

// What a model might make: ascending indices, labels below the classes; `keep` of any length.
void fill(const std::string& name, Tensor& tensor, int64_t before, Random& random) {
  if (name.rfind("keep", 0) == 0) tensor = make_tensor(DType::kInt32, {1, below(random, before + 1)});
  for (int64_t k = 0; k < tensor.elements(); ++k) {
    if (tensor.type == DType::kInt32)
      tensor.as<int32_t>()[k] = static_cast<int32_t>(k);
    else if (tensor.type == DType::kUint8)
      tensor.as<uint8_t>()[k] = static_cast<uint8_t>(below(random, kClasses));
    else
      tensor.as<float>()[k] = static_cast<float>(below(random, 1000)) / 1000;
  }
}

// One output changed into what it must not be.
void lie(Tensor& tensor, Random& random) {
  const int64_t odd[] = {-1, 0, 1, 2, kTokens - 1, kTokens + 1, 1000, INT32_MAX, INT32_MIN};
  switch (below(random, 6)) {
    case 0:  // another type, in memory of its own
      tensor = make_tensor(static_cast<DType>(below(random, 7)), tensor.shape);
      std::memset(tensor.data, static_cast<int>(below(random, 256)), tensor.bytes());
      break;
    case 1: {  // any shape
      Shape shape;
      for (int64_t rank = below(random, 5); rank > 0; --rank) shape.push_back(below(random, 30));
      tensor = make_tensor(tensor.type, shape);
      std::memset(tensor.data, static_cast<int>(below(random, 2)), tensor.bytes());
      break;
    }
    case 2:  // as many times as long, or shorter, or empty
      if (tensor.shape.empty()) break;
      tensor.shape[static_cast<size_t>(below(random, static_cast<int64_t>(tensor.shape.size())))] = below(random, 200);
      tensor = make_tensor(tensor.type, tensor.shape);
      std::memset(tensor.data, 0, tensor.bytes());
      break;
    case 3:  // not made
      tensor.data = nullptr;
      tensor.owner = nullptr;
      break;
    default:  // a value
      if (!tensor.elements()) break;
      const int64_t place = below(random, tensor.elements()), value = odd[below(random, 9)];
      if (tensor.type == DType::kInt32)
        tensor.as<int32_t>()[place] = static_cast<int32_t>(value);
      else if (tensor.type == DType::kUint8)
        tensor.as<uint8_t>()[place] = static_cast<uint8_t>(below(random, 256));
      else
        tensor.as<float>()[place] = value % 2 ? static_cast<float>(value) : NAN;
  }
}

struct WrongEngine : Engine {
  explicit WrongEngine(Random& random) : random(random) {}
  void run(const Tensors& in, Tensors& out) const override {
    int64_t sum = 0, before = kTokens;  // every byte that the engine is handed is read
    for (const auto& [name, tensor] : in) {
      for (size_t k = 0; k < tensor.bytes(); ++k) sum += tensor.as<uint8_t>()[k];
      if (name.rfind("keep", 0) == 0) before = tensor.elements();
    }
    EXPECT(sum >= 0);
    for (auto& [name, tensor] : out) {
      fill(name, tensor, before, random);
      if (below(random, 25) == 0) lie(tensor, random);
    }
  }
  Random& random;
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  const int runs = std::atoi(arguments[1]);
  Random random(static_cast<unsigned>(std::atoi(arguments[2])));
  const Manifest manifest = manifest_of_three_blocks();
  check_manifest(manifest, "bundle.json");
  std::vector<std::unique_ptr<Engine>> engines;
  for (size_t k = 0; k < manifest.steps.size(); ++k) engines.push_back(std::make_unique<WrongEngine>(random));
  const Session session({".", manifest}, std::make_unique<Chain>(manifest, std::move(engines)), {});
  int whole = 0;
  std::set<std::string> sentences;
  for (int run = 0; run < runs; ++run) {
    const Size size = run % 3 ? session.window() : Size{static_cast<int>(1 + below(random, 9)), 7};
    RunOptions options;
    options.mode = run % 5 ? Mode::kWhole : Mode::kSlide;
    options.keep_ratio = run % 7 == 0;
    options.return_logits = run % 2;
    const Pixels pixels(std::vector<uint8_t>(static_cast<size_t>(size.height) * size.width * 3, 9), size);
    try {
      const Result result = session.run(pixels, session.request(options), options);
      const auto* labels = result.labels.as<uint8_t>();
      for (int64_t k = 0; k < result.labels.elements(); ++k) EXPECT(labels[k] < kClasses);
      ++whole;
    } catch (const DovitError& error) {
      EXPECT(!std::strchr(error.what(), '\n'));
      sentences.insert(error.what());
    }
  }
  std::printf("%d results, %zu different sentences\n", whole, sentences.size());
  EXPECT(whole > runs / 20 && sentences.size() > 50);
  return 0;
}
