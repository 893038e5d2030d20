// The program of a plan set: the operations of one pass, with their tensors in one block of device memory. It has the
// fields of runtime/bundle/program.py; docs/program.md documents them.
#pragma once

#include <filesystem>

#include "bundle/manifest.h"
#include "chain/dimensions.h"

namespace dovit::runtime {

// A size that depends on a decision: the tokens that the segment runs on, plus `plus`.
struct Kept {
  int64_t plus = 0;
};
using Size1d = std::variant<int64_t, Kept>;

struct ArenaTensor {
  std::string name;
  Choice<DTypeNames> dtype;
  std::vector<int64_t> shape;  // at its largest
  int64_t offset = 0, first = 0, last = 0;

  int64_t bytes() const;
};

struct Constant {
  std::string tensor;
  std::vector<int64_t> values;
};

struct Address {
  std::string tensor;
  int64_t offset = 0;
};

struct ElementTypeNames {
  static constexpr std::array<const char*, 3> all = {"float32", "float16", "bfloat16"};
};
struct ElementType {
  Choice<ElementTypeNames> dtype;
};

// What a pass sets.
struct VariableNames {
  static constexpr std::array<const char*, 4> all = {"scratch", "capacities", "capacity_count", "switch"};
};
using Argument = std::variant<int64_t, Kept, Address, ElementType, Choice<VariableNames>>;

// A tensor of a plan, by the engine's name of it, and where it lies.
struct Binding {
  std::string name, tensor;
  Choice<DTypeNames> dtype;
  std::vector<Size1d> shape;

  Shape resolve(int64_t kept) const;  // where the segment runs on `kept` tokens
};

struct RunPlan {
  std::string name;
  std::vector<Binding> inputs, outputs;
  std::vector<int64_t> profiles;  // the largest kept count of each, rising

  size_t profile(int64_t kept) const;  // the first that holds `kept` tokens
};

struct LaunchKernel {
  std::string name, kernel;
  std::vector<std::pair<std::string, Argument>> arguments;  // a value for each field of the kernel's struct but `size`
  std::optional<std::array<int64_t, 3>> scratch;            // arguments of dovit_{kernel}_scratch_bytes
};

struct Copy {
  std::string name, source, target;
};

using Operation = std::variant<RunPlan, LaunchKernel, Copy>;

struct Segment {
  std::vector<Operation> operations, if_none_kept;

  // Both: what a check has to look at.
  std::array<const std::vector<Operation>*, 2> all_operations() const { return {&operations, &if_none_kept}; }
};

struct DecisionTensors {
  std::string capacity, confidence, index, keep;
};

struct Program {
  int64_t version = 1, batch = 0, tokens = 0, arena_bytes = 0, result_bytes = 0;
  std::vector<ArenaTensor> tensors;
  std::vector<Constant> constants;
  std::vector<DecisionTensors> decisions;
  std::vector<Segment> segments;

  const ArenaTensor& tensor(const std::string& name) const;  // throws DovitError where there is none
};

// Reads and checks the program of a plan set of the bundle in `root`, whose files were checked: nothing leaves the
// arena or names what does not exist, and it fits the manifest. Throws DovitError.
Program read_program(const std::filesystem::path& root, const Manifest& manifest, const PlanSet& plans);

// The same of a file's content; `file` is its name in sentences, `again` how to make a new one.
Program parse_program(const std::string& content, const std::string& file, const std::string& again);

}  // namespace dovit::runtime
