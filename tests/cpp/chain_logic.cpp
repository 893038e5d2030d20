// The chain over engines that record their inputs: no model, no ONNX Runtime. Two blocks, one decision, one
// tap.
#include <cstring>

#include "bundle/check.h"
#include "chain/chain.h"
#include "errors.h"
#include "expect.h"
#include "image/resize.h"
#include "image/upsample.h"

using namespace dovit::runtime;

namespace {

const TensorSpec image{"image", {"uint8"}, {"batch", 2, 4, 3}}, xi{"threshold1", {"float32"}, {}},
    capacities{"capacities", {"int64"}, {"capacities"}}, tokens1{"tokens1", {"float32"}, {"batch", 9, 1}},
    index0{"index0", {"int32"}, {"batch", 8}}, full0{"full0", {"float32"}, {"batch", 8, 1}},
    confidence{"confidence1", {"float32"}, {"batch", 8}}, keep{"keep1", {"int32"}, {"batch", "kept1"}},
    tokens2{"tokens2", {"float32"}, {"batch", "length1", 1}}, index1{"index1", {"int32"}, {"batch", "kept1"}},
    full1{"full1", {"float32"}, {"batch", 8, 1}}, tap{"tap", {"float32"}, {"batch", 8, 1}},
    labels{"labels", {"uint8"}, {"batch", 2, 4}}, logits{"logits", {"float32"}, {"batch", 2, 2, 4}};

Manifest small_manifest() {
  Manifest m;
  m.image_size = {2, 4};
  m.patch = 1;
  m.prefix = 1;
  m.classes = 2;
  m.slide_stride = {2, 4};
  m.std = {1, 1, 1};
  m.thresholds = {0.5};
  m.capacities = {0, 4, 8};
  m.steps = {{"stem", "a", {}, {image, xi, capacities}, {tokens1, index0, full0, confidence, keep}, 0, {}},
             {"block2", "b", {}, {tokens1, index0, full0, keep}, {tokens2, index1, full1, tap}, 0, {}},
             {"decoder", "c", {}, {full1, tokens2, index1, tap}, {labels, logits}, 0, {}}};
  m.decisions = {{1, {"tokens1", "index0", "full0"}, "threshold1", "confidence1", "keep1"}};
  m.final = {"tokens2", "index1", "full1"};
  m.taps = {"tap"};
  return m;
}

std::vector<std::string> ran;  // the steps that were run, in order

struct Stem : Engine {
  void run(const Tensors& in, Tensors& out) const override {
    ran.push_back("stem");
    const float threshold = *in.at("threshold1").as<float>();
    std::vector<int32_t> stay;
    for (int k = 0; k < 9; ++k) out.at("tokens1").as<float>()[k] = static_cast<float>(10 + k);
    for (int k = 0; k < 8; ++k) {
      out.at("index0").as<int32_t>()[k] = k;
      out.at("full0").as<float>()[k] = -1;
      out.at("confidence1").as<float>()[k] = static_cast<float>(k + 1) / 10;
      if (!(out.at("confidence1").as<float>()[k] > threshold)) stay.push_back(k);
    }
    const Tensor& allowed = in.at("capacities");
    int64_t chosen = -1;
    for (int64_t k = allowed.elements() - 1; k >= 0; --k)
      if (allowed.as<int64_t>()[k] >= static_cast<int64_t>(stay.size())) chosen = allowed.as<int64_t>()[k];
    for (int k = static_cast<int>(stay.size()); k < chosen; ++k)
      stay.push_back(k);  // the least confident come first here
    Tensor& kept = out.at("keep1");
    kept = make_tensor(DType::kInt32, {1, chosen});
    std::copy(stay.begin(), stay.begin() + chosen, kept.as<int32_t>());
  }
};

struct Block : Engine {
  void run(const Tensors& in, Tensors& out) const override {
    ran.push_back("block2");
    const Tensor& kept = in.at("keep1");
    EXPECT(out.at("tokens2").shape[1] == kept.elements() + 1);
    for (Tensor* made : {&out.at("tokens2"), &out.at("full1"), &out.at("tap")})
      for (int64_t k = 0; k < made->elements(); ++k) made->as<float>()[k] = 5;
    std::memcpy(out.at("index1").data, kept.data, kept.bytes());
  }
};

struct Decoder : Engine {
  void run(const Tensors& in, Tensors& out) const override {
    ran.push_back("decoder");
    const bool early = in.at("tokens2").as<float>()[0] == 10;  // these are tokens1, then
    for (int k = 0; k < 8; ++k) {
      // after an early end the tap is the sequence with every token written in
      EXPECT(in.at("tap").as<float>()[k] == (early ? static_cast<float>(11 + k) : 5.0f));
      EXPECT(in.at("full1").as<float>()[k] == (early ? -1.0f : 5.0f));
      out.at("labels").as<uint8_t>()[k] = static_cast<uint8_t>(k % 2);
    }
    std::memset(out.at("logits").data, 0, out.at("logits").bytes());
  }
};

struct WrongEngine : Engine {  // an index that points outside the image
  void run(const Tensors& in, Tensors& out) const override {
    Stem().run(in, out);
    out.at("index0").as<int32_t>()[3] = 8;
  }
};

template <class First>
Chain chain_of(const Manifest& manifest) {
  std::vector<std::unique_ptr<Engine>> engines;
  engines.push_back(std::make_unique<First>());
  engines.push_back(std::make_unique<Block>());
  engines.push_back(std::make_unique<Decoder>());
  return Chain(manifest, std::move(engines));
}

void refused(const Manifest& manifest, const char* what) {
  try {
    check_manifest(manifest, "bundle.json");
    EXPECT(!"refused");
  } catch (const DovitError& error) {
    if (!std::strstr(error.what(), what)) fprintf(stderr, "%s\n", error.what());
    EXPECT(std::strstr(error.what(), what));
  }
}

void test_schedules() {
  const Manifest manifest = small_manifest();
  check_manifest(manifest, "bundle.json");
  const Chain chain = chain_of<Stem>(manifest);
  const uint8_t pixels[24] = {};
  for (const auto& [threshold, exact, bucketed] :
       {std::array<double, 3>{0.35, 3, 4}, {1.0, 8, 8}, {0.0, 0, 0}, {0.45, 4, 4}, {0.55, 5, 8}}) {
    for (const Schedule schedule : {Schedule::kExact, Schedule::kBucketed, Schedule::kRounded}) {
      ran.clear();
      const Pass pass = chain.run(Frame{pixels}, {{threshold}, schedule, std::nullopt});
      const double rounded = exact > 0 ? 8 : 0;  // of 8 tokens, fewer than what is rounded to
      const auto kept = static_cast<size_t>(schedule == Schedule::kExact      ? exact
                                            : schedule == Schedule::kBucketed ? bucketed
                                                                              : rounded);
      EXPECT(pass.decisions.size() == 1 && pass.decisions[0].keep.size() == kept);
      EXPECT(ran == (kept ? std::vector<std::string>{"stem", "block2", "decoder"}
                          : std::vector<std::string>{"stem", "decoder"}));
      EXPECT(pass.labels.as<uint8_t>()[1] == 1);
    }
  }
  const Pass counted = chain.run(Frame{pixels}, {{1.0}, Schedule::kExact, std::vector<int64_t>{2}});
  EXPECT((counted.decisions[0].keep == std::vector<int32_t>{0, 1}));
}

void test_engines_are_not_trusted() {
  const Manifest manifest = small_manifest();
  const Chain chain = chain_of<WrongEngine>(manifest);
  const uint8_t pixels[24] = {};
  try {
    chain.run(Frame{pixels}, {{0.5}, Schedule::kExact, std::nullopt});
    EXPECT(!"refused");
  } catch (const DovitError& error) {
    EXPECT(std::strstr(error.what(), "tensor index0 has the index 8, expected 0 to 7"));
  }
}

void test_contradictions() {
  const auto changed = [](auto change) {
    Manifest manifest = small_manifest();
    change(manifest);
    return manifest;
  };
  refused(changed([](Manifest& m) { m.patch = 0; }), "(patch)");
  refused(changed([](Manifest& m) { m.patch = 3; }), "(patch)");
  refused(changed([](Manifest& m) { m.image_size = {-2, 4}; }), "(image_size)");
  refused(changed([](Manifest& m) { m.classes = 300; }), "(logits)");
  refused(changed([](Manifest& m) { m.class_names = {{"road"}}; }), "(class_names)");
  refused(changed([](Manifest& m) { m.palette = {{{1, 2, 3}}}; }), "(palette)");
  refused(changed([](Manifest& m) { m.slide_stride = {0, 4}; }), "(slide_stride)");
  refused(changed([](Manifest& m) { m.capacities = {9}; }), "(capacities)");
  refused(changed([](Manifest& m) { m.thresholds = {}; }), "(thresholds)");
  refused(changed([](Manifest& m) { m.steps.clear(); }), "(no steps)");
  refused(changed([](Manifest& m) { m.steps.erase(m.steps.begin()); }), "which no step before it makes");
  refused(changed([](Manifest& m) { m.steps[0].outputs.pop_back(); }), "reads keep1, which no step before it makes");
  refused(changed([](Manifest& m) { m.steps[0].outputs[0].shape[1] = int64_t{1} << 50; }), "impossible size");
  refused(changed([](Manifest& m) { m.steps[0].outputs[0].shape[1] = "kept9"; }), "has the dimension kept9");
  refused(changed([](Manifest& m) { m.steps[0].outputs[0].dtype.value = "int64"; }), "two types");
  refused(changed([](Manifest& m) { m.steps[1].outputs.push_back(tokens1); }), "made twice");
  refused(changed([](Manifest& m) { m.steps[2].outputs[0].shape[2] = 5; }), "(labels)");
}

// Every output pixel of an image of one colour has that colour, whichever way it is resized.
void test_flat_colours() {
  const std::vector<uint8_t> flat(7 * 5 * 3, 200);
  const Pixels image(flat.data(), {7, 5});
  for (const Size size : {Size{1, 1}, {14, 3}, {3, 14}, {7, 9}, {2, 5}}) {
    const Pixels out = resized(image, size);
    for (int k = 0; k < size.height * size.width * 3; ++k) EXPECT(out.data()[k] == 200);
  }
}

void test_ties_go_to_the_lowest_class_and_many_classes_need_two_bytes() {
  std::vector<float> many(300 * 4, 0.0f);
  many[257 * 4] = many[299 * 4] = 1;
  int16_t wide[4] = {-1, -1, -1, -1};
  labels_from_logits(many.data(), 300, {2, 2}, {2, 2}, wide, 4, 2);
  EXPECT(wide[0] == 257 && wide[1] == 0 && wide[2] == 0 && wide[3] == 0);
}

}  // namespace

int main() {
  test_schedules();
  test_engines_are_not_trusted();
  test_contradictions();
  test_flat_colours();
  test_ties_go_to_the_lowest_class_and_many_classes_need_two_bytes();
  return 0;
}
