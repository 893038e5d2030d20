#include "bundle/check.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "chain/dimensions.h"
#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr int64_t kMaxSidePixels = int64_t{1} << 15;  // of an image's side
constexpr int64_t kMaxClasses = 32767;                // labels are int16 at most
constexpr int64_t kMaxElements = int64_t{1} << 40;    // of a tensor
constexpr size_t kMaxDimensions = 8;                  // of a tensor, as TensorRT has it

struct Checker {
  const Manifest& manifest;
  const std::string& file;

  [[noreturn]] void fail(const std::string& what) const {
    throw DovitError(text(file, ": the manifest contradicts itself (", what, "); export the bundle again"));
  }
  void expect(bool holds, const std::string& what) const {
    if (!holds) fail(what);
  }

  void sizes() const {
    const auto within = [](int64_t value, int64_t most) { return value >= 1 && value <= most; };
    expect(within(manifest.image_size[0], kMaxSidePixels) && within(manifest.image_size[1], kMaxSidePixels),
           "image_size");
    expect(within(manifest.patch, kMaxSidePixels) && manifest.image_size[0] % manifest.patch == 0 &&
               manifest.image_size[1] % manifest.patch == 0,
           "patch");
    expect(manifest.prefix >= 0 && manifest.prefix <= 1024, "prefix");
    const int64_t side = manifest.merge_cells;
    expect(side >= 0 && side <= 1024 && !(manifest.merge && side > 0), "merge_cells");
    const auto cells = [&](int64_t patches) { return (patches + side - 1) / side; };
    expect(side == 0 || cells(manifest.grid_height()) * cells(manifest.grid_width()) <= manifest.prefix, "merge_cells");
    expect(within(manifest.classes, kMaxClasses), "classes");
    expect(within(manifest.slide_stride[0], manifest.image_size[0]) &&
               within(manifest.slide_stride[1], manifest.image_size[1]),
           "slide_stride");  // a larger one leaves pixels that no window covers
    for (const double value : manifest.mean) expect(std::isfinite(value), "mean");
    for (const double value : manifest.std) expect(std::isfinite(value) && value > 0, "std");
    expect(manifest.decisions.size() <= 1024 && manifest.thresholds.size() == manifest.decisions.size(), "thresholds");
    for (const double threshold : manifest.thresholds) expect(threshold >= 0 && threshold <= 1, "thresholds");
    for (const DecisionSpec& decision : manifest.decisions) expect(within(decision.lens_kernel, 1024), "lens_kernel");
    // a decision rounds its kept count up to one of them, so the last holds all tokens
    const std::vector<int64_t>& capacities = manifest.capacities;
    expect(!capacities.empty() && capacities.front() >= 0 && capacities.back() == manifest.tokens() &&
               std::is_sorted(capacities.begin(), capacities.end()),
           "capacities");
    const auto classes = static_cast<size_t>(manifest.classes);
    expect(!manifest.class_names || manifest.class_names->size() == classes, "class_names");
    expect(!manifest.palette || manifest.palette->size() == classes, "palette");
    if (manifest.palette)
      for (const auto& colour : *manifest.palette)
        for (const int64_t value : colour) expect(value >= 0 && value <= 255, "palette");
  }

  // The elements of a tensor at its largest.
  int64_t elements(const TensorSpec& spec, const Dimensions& dims) const {
    int64_t count = 1;
    expect(spec.shape.size() <= kMaxDimensions, text("tensor ", spec.name, " has an impossible size"));
    for (const Dimension& dimension : spec.shape) {
      int64_t size = 0;
      if (const auto* name = std::get_if<std::string>(&dimension)) {
        const auto found = dims.find(*name);
        expect(found != dims.end(), text("tensor ", spec.name, " has the dimension ", *name));
        size = found->second;
      } else {
        size = std::get<int64_t>(dimension);
      }
      expect(size >= 0 && size <= kMaxElements && (size == 0 || count <= kMaxElements / size),
             text("tensor ", spec.name, " has an impossible size"));
      count *= size;
    }
    return count;
  }

  // What steps may read before any of them has run.
  std::map<std::string, TensorSpec> given() const {
    std::map<std::string, TensorSpec> made{{"image", {"image", {"uint8"}, {}}},
                                           {"stopped_count0", {"stopped_count0", {"int64"}, {}}},
                                           {"capacities", {"capacities", {"int64"}, {}}}};
    for (const DecisionSpec& decision : manifest.decisions)
      made[decision.threshold] = {decision.threshold, {"float32"}, {}};
    return made;
  }

  // A step reads what was made before, and adds what it makes.
  void flow(const Step& step, const Dimensions& dims, std::map<std::string, TensorSpec>& made) const {
    for (const TensorSpec& spec : step.inputs) {
      const auto found = made.find(spec.name);
      expect(found != made.end(), text("step ", step.name, " reads ", spec.name, ", which no step before it makes"));
      expect(found->second.dtype.value == spec.dtype.value, text("tensor ", spec.name, " has two types"));
      if (spec.name == "capacities") continue;  // their number is the caller's
      elements(spec, dims);
    }
    for (const TensorSpec& spec : step.outputs) {
      elements(spec, dims);
      expect(made.emplace(spec.name, spec).second, text("tensor ", spec.name, " is made twice"));
    }
  }

  void steps() const {
    expect(!manifest.steps.empty(), "no steps");
    const Dimensions dims = full_dims(manifest);
    std::map<std::string, TensorSpec> made = given();
    size_t decided = 0;
    for (const Step& step : manifest.steps) {
      flow(step, dims, made);
      decided += decides(step, decided);
    }
    expect(decided == manifest.decisions.size(), "decisions that no step makes");
    if (!manifest.decisions.empty()) {  // the first sees the tokens before the patches, and all patches
      const auto first = made.find(manifest.decisions[0].state.tokens);
      const Dimension length = manifest.prefix + manifest.tokens();
      expect(first == made.end() || (first->second.shape.size() > 1 && first->second.shape[1] == length), "prefix");
    }
    results(manifest.steps.back());
  }

  // Whether the step makes the decision that comes next; the tensors of a decision are the step's, or before it.
  bool decides(const Step& step, size_t next) const {
    size_t found = 0;
    for (const TensorSpec& spec : step.outputs)
      for (size_t k = 0; k < manifest.decisions.size(); ++k)
        if (manifest.decisions[k].keep == spec.name) {
          ++found;
          expect(k == next && spec.dtype == "int32", text("decision ", spec.name));
        }
    expect(found <= 1, text("step ", step.name, " makes two decisions"));
    return found == 1;
  }

  void results(const Step& last) const {
    const TensorSpec *labels = nullptr, *logits = nullptr;
    for (const TensorSpec& spec : last.outputs) {
      if (spec.name == "labels") labels = &spec;
      if (spec.name == "logits") logits = &spec;
    }
    expect(labels && (labels->dtype == "uint8" || labels->dtype == "int16"), "labels");
    const auto is = [](const Dimension& d, int64_t size) { return d == Dimension(size); };
    const auto is_batch = [](const Dimension& d) { return d == Dimension(int64_t{1}) || d == Dimension("batch"); };
    expect(labels->shape.size() == 3 && is_batch(labels->shape[0]) && is(labels->shape[1], manifest.image_size[0]) &&
               is(labels->shape[2], manifest.image_size[1]),
           "labels");
    expect(logits && logits->dtype == "float32" && logits->shape.size() == 4 && is_batch(logits->shape[0]) &&
               is(logits->shape[1], manifest.classes),
           "logits");
    for (size_t k : {2, 3})
      expect(std::holds_alternative<int64_t>(logits->shape[k]) && std::get<int64_t>(logits->shape[k]) > 0 &&
                 std::get<int64_t>(logits->shape[k]) <= kMaxSidePixels,
             "logits");
    expect((manifest.classes <= 256) == (labels->dtype == "uint8"), "labels");
  }
};

}  // namespace

void check_manifest(const Manifest& manifest, const std::string& file) {
  const Checker checker{manifest, file};
  checker.sizes();
  checker.steps();
}

}  // namespace dovit::runtime
