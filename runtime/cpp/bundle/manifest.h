// `bundle.json` in C++: the fields of runtime/bundle/manifest.py and its neighbours, in their order; they are
// documented there. The tests compare both with tests/cpp/manifest_layout.json.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace dovit::runtime {

constexpr int64_t kSchemaVersion = 5;
constexpr const char* kManifestName = "bundle.json";

// A string that is one of Names::all.
template <class Names>
struct Choice {
  std::string value;
  bool operator==(const char* other) const { return value == other; }
};

struct DTypeNames {
  static constexpr std::array<const char*, 7> all = {"uint8",   "int16",    "int32",  "int64",
                                                     "float16", "bfloat16", "float32"};
};
struct ModeNames {
  static constexpr std::array<const char*, 2> all = {"whole", "slide"};
};
struct ManifestPrecisionNames {
  static constexpr std::array<const char*, 3> all = {"fp32", "int8", "fp8"};
};
struct FlavourNames {
  static constexpr std::array<const char*, 2> all = {"tensorrt", "tensorrt-rtx"};
};
struct PrecisionNames {
  static constexpr std::array<const char*, 3> all = {"fp32", "fp16", "bf16"};
};
struct KindNames {
  static constexpr std::array<const char*, 5> all = {"plan", "decide", "gather", "reconstruct", "labels"};
};

// A size, or the name of one that depends on the image: batch, kept3, length3, capacities.
using Dimension = std::variant<int64_t, std::string>;

struct TensorSpec {
  std::string name;
  Choice<DTypeNames> dtype;
  std::vector<Dimension> shape;
};

struct StepMacs {
  int64_t fixed = 0, per_token = 0, per_joined = 0, per_pair = 0, fixed_pairs = 0;
};

struct Step {
  std::string name;
  std::optional<std::string> onnx;    // none where the bundle holds plans only
  std::vector<std::string> openvino;  // the same for OpenVINO: run in this order, all but the first in float32 always
  std::vector<TensorSpec> inputs, outputs;
  int64_t parameters = 0;
  StepMacs macs;
};

struct State {
  std::string tokens, index, full;
};

struct DecisionSpec {
  int64_t layer = 0;
  State state;
  std::string threshold, confidence, keep;
  int64_t lens_kernel = 1;  // rows and columns of patches that its lens sees; 1 without a lens too
};

struct Source {
  std::string checkpoint, options;
  bool verified = false;
};

struct FileEntry {
  std::string sha256;
  int64_t size = 0;
};

struct Profile {
  int64_t least = 0, best = 0, most = 0;
};

struct Plan {
  std::string file;
  std::vector<Profile> profiles;
  int64_t parameters = 0, network_layers = 0;
  std::vector<std::string> layers;
  int64_t attentions = 0, fused_attentions = 0, weight_bytes = 0, activation_bytes = 0;
  double build_seconds = 0;
};

struct PlanStep {
  std::string name, step;
  Choice<KindNames> kind;
  std::vector<TensorSpec> inputs, outputs;
  std::optional<Plan> plan;
};

struct Accuracy {
  int64_t scenes = 0;
  std::string lowering;
  std::vector<std::pair<std::string, double>> differences;
  double label_agreement = 0;
  std::vector<double> kept_agreement;
  std::optional<std::array<double, 2>> miou;
};

struct PlanSet {
  Choice<FlavourNames> flavour;
  std::string version;
  std::optional<int64_t> cuda;
  std::vector<std::string> compute_capabilities;
  Choice<PrecisionNames> precision;
  std::vector<std::string> float32_nodes;
  int64_t batch = 0;
  std::optional<std::string> plugin_version;
  std::optional<int64_t> workspace_mib, optimisation_level;
  bool user_allocation = false;
  std::vector<PlanStep> steps;
  std::optional<std::string> program;
  std::optional<Accuracy> accuracy;

  std::string name() const { return flavour.value + " " + precision.value; }
};

struct LeftOut {
  std::string product;
  double cost = 0;
};

struct Quantization {
  int64_t calibrated = 0;
  std::vector<std::pair<std::string, int64_t>> products;
  std::vector<LeftOut> left;
  int64_t measured = 0;
  bool held_out = false;
  std::vector<std::pair<std::string, double>> errors;
  double label_agreement = 0, same_fate = 0;
  std::optional<std::array<double, 2>> miou;
};

struct Manifest {
  int64_t schema_version = kSchemaVersion;
  std::string dovit_version, architecture;
  std::array<int64_t, 2> image_size{};  // (height, width), as all sizes here
  int64_t patch = 0, embed_dim = 0, prefix = 0;
  bool merge = true;
  int64_t merge_cells = 0;
  int64_t classes = 0;
  std::optional<std::vector<std::string>> class_names;
  std::optional<std::vector<std::array<int64_t, 3>>> palette;
  std::array<double, 3> mean{}, std{};
  std::array<int64_t, 2> slide_stride{};
  Choice<ModeNames> mode{"whole"};
  bool keep_ratio = false;
  Choice<ManifestPrecisionNames> precision;
  std::vector<double> thresholds;
  std::vector<int64_t> capacities;
  std::array<int64_t, 2> dense_macs{};
  std::vector<Step> steps;
  std::vector<DecisionSpec> decisions;
  State final;
  std::vector<std::string> taps;
  std::vector<PlanSet> plans;
  std::optional<Source> source;
  std::optional<Quantization> quantization;
  std::vector<std::pair<std::string, FileEntry>> files;  // in the order of the manifest

  int64_t grid_height() const { return image_size[0] / patch; }
  int64_t grid_width() const { return image_size[1] / patch; }
  int64_t tokens() const { return grid_height() * grid_width(); }  // N = h·w
  // How many tokens every decision keeps at least: 1 where the decoder reads what the last block alone makes (the
  // queries of EoMT), else 0.
  int64_t least_kept() const {
    for (const TensorSpec& spec : steps.back().inputs) {
      const bool known = spec.name == final.tokens || spec.name == final.index || spec.name == final.full ||
                         std::find(taps.begin(), taps.end(), spec.name) != taps.end();
      if (!known) return 1;
    }
    return 0;
  }
};

}  // namespace dovit::runtime
