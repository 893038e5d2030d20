#include "bundle/program.h"

#include <algorithm>
#include <limits>

#include "bundle/json_fields.h"
#include "bundle/read.h"
#include "bundle/regular_file.h"
#include "chain/tensor.h"

namespace dovit::runtime {

namespace {

constexpr int64_t kMaxMemoryBytes = int64_t{1} << 46;
constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max();
constexpr int64_t kArenaAlignment = 256;
constexpr size_t kMaxFileBytes = size_t{64} << 20;

// A number that a field takes. Throws FieldError for any other.
void expect_within(int64_t value, int64_t least, int64_t most, const Where& where) {
  if (value < least || value > most) where.fail(text("a number from ", least, " to ", most, " expected, got ", value));
}

// Throws DovitError where `value`, which is `what`, is larger than `most`.
void expect_at_most(int64_t value, int64_t most, const std::string& what) {
  if (value > most) throw DovitError(text(what, ": at most ", most, " expected, got ", value));
}

}  // namespace

template <class Visitor>
void fields(Visitor& visit, Kept& kept) {
  visit("kept_plus", kept.plus);
}

template <class Visitor>
void fields(Visitor& visit, ArenaTensor& tensor) {
  visit("name", tensor.name);
  visit("dtype", tensor.dtype);
  visit("shape", tensor.shape);
  visit("offset", tensor.offset);
  visit("first", tensor.first);
  visit("last", tensor.last);
}

template <class Visitor>
void fields(Visitor& visit, Constant& constant) {
  visit("tensor", constant.tensor);
  visit("values", constant.values);
}

template <class Visitor>
void fields(Visitor& visit, Address& address) {
  visit("tensor", address.tensor);
  visit.optional("offset", address.offset);
}

template <class Visitor>
void fields(Visitor& visit, ElementType& type) {
  visit("dtype", type.dtype);
}

template <class Visitor>
void fields(Visitor& visit, Binding& binding) {
  visit("name", binding.name);
  visit("tensor", binding.tensor);
  visit("dtype", binding.dtype);
  visit("shape", binding.shape);
}

template <class Visitor>
void fields(Visitor& visit, RunPlan& run) {
  visit("name", run.name);
  visit("inputs", run.inputs);
  visit("outputs", run.outputs);
  visit("profiles", run.profiles);
}

template <class Visitor>
void fields(Visitor& visit, LaunchKernel& launch) {
  visit("name", launch.name);
  visit("kernel", launch.kernel);
  visit("arguments", launch.arguments);
  visit.optional("scratch", launch.scratch);
}

template <class Visitor>
void fields(Visitor& visit, Copy& copy) {
  visit("name", copy.name);
  visit("source", copy.source);
  visit("target", copy.target);
}

template <class Visitor>
void fields(Visitor& visit, Segment& segment) {
  visit("operations", segment.operations);
  visit.optional("if_none_kept", segment.if_none_kept);
}

template <class Visitor>
void fields(Visitor& visit, DecisionTensors& decision) {
  visit("capacity", decision.capacity);
  visit("confidence", decision.confidence);
  visit("index", decision.index);
  visit("keep", decision.keep);
}

template <class Visitor>
void fields(Visitor& visit, Program& program) {
  visit.optional("version", program.version);
  visit("batch", program.batch);
  visit("tokens", program.tokens);
  visit("arena_bytes", program.arena_bytes);
  visit("result_bytes", program.result_bytes);
  visit("tensors", program.tensors);
  visit("constants", program.constants);
  visit("decisions", program.decisions);
  visit("segments", program.segments);
}

inline void read(const Json& json, Size1d& size, const Where& where) {
  if (json.is_object()) {
    Kept kept;
    read(json, kept, where);
    expect_within(kept.plus, 0, kMaxCount, where);
    size = kept;
  } else {
    int64_t number = 0;
    read(json, number, where);
    expect_within(number, 0, kMaxCount, where);
    size = number;
  }
}

inline void read(const Json& json, Argument& argument, const Where& where) {
  if (json.is_string()) {
    Choice<VariableNames> variable;
    read(json, variable, where);
    argument = variable;
  } else if (json.is_object() && json.contains("tensor")) {
    Address address;
    read(json, address, where);
    expect_within(address.offset, 0, kMaxMemoryBytes, where);
    argument = address;
  } else if (json.is_object() && json.contains("dtype")) {
    ElementType type;
    read(json, type, where);
    argument = type;
  } else {
    Size1d size;
    read(json, size, where);
    std::visit([&](const auto& value) { argument = value; }, size);
  }
}

inline void read(const Json& json, Operation& operation, const Where& where) {
  if (!json.is_object() || !json.contains("kind")) where.fail("an operation with a kind expected");
  Json rest = json;
  rest.erase("kind");
  const auto as = [&](auto read_as) {
    read(rest, read_as, where);
    operation = std::move(read_as);
  };
  if (json["kind"] == "plan")
    as(RunPlan());
  else if (json["kind"] == "kernel")
    as(LaunchKernel());
  else if (json["kind"] == "copy")
    as(Copy());
  else
    Where{&where, "kind"}.fail("plan, kernel or copy expected");
}

namespace {

// Bounds: what an operation may touch, and what the host reads and writes.
class BoundsCheck {
 public:
  explicit BoundsCheck(const Program& program) : program_(program) {}

  void run() const {
    if (program_.version != 1) throw DovitError(text("version: 1 expected, got ", program_.version));
    for (const auto& [value, what] : {std::pair(program_.batch, "batch"), {program_.tokens, "tokens"}})
      if (value < 1 || value > kMaxCount) throw DovitError(text(what, ": at least 1 expected, got ", value));
    expect_at_most(program_.arena_bytes, kMaxMemoryBytes, "arena_bytes");
    for (const ArenaTensor& tensor : program_.tensors) check(tensor);
    if (program_.result_bytes < 0) throw DovitError("result_bytes: at least 0 expected");
    expect_at_most(program_.result_bytes, program_.arena_bytes, "result_bytes");
    if (program_.segments.size() != program_.decisions.size() + 2)
      throw DovitError(text(program_.segments.size(), " segments, ", program_.decisions.size() + 2, " expected"));
    for (const char* name : {"image", "thresholds", "capacities", "fixed_capacity", "labels", "logits"})
      program_.tensor(name);
    expect_at_most(4 * static_cast<int64_t>(program_.decisions.size()), program_.tensor("thresholds").bytes(),
                   "the thresholds, in bytes");
    expect_at_most(8, program_.tensor("fixed_capacity").bytes(), "fixed_capacity, in bytes");
    for (const DecisionTensors& decision : program_.decisions) {
      check_result(decision.capacity, 4);
      for (const std::string& name : {decision.confidence, decision.index, decision.keep})
        check_result(name, 4 * program_.batch * program_.tokens);
    }
    check_result("labels", program_.tensor("labels").bytes());
    for (const Constant& constant : program_.constants) {
      const ArenaTensor& tensor = program_.tensor(constant.tensor);
      if (tensor.dtype == "int64" || tensor.dtype == "int32")
        expect_at_most(static_cast<int64_t>(constant.values.size() * (tensor.dtype == "int64" ? 8 : 4)), tensor.bytes(),
                       text("constant ", constant.tensor, ", in bytes"));
      else
        throw DovitError(text("constant ", constant.tensor, ": int32 or int64 expected, got ", tensor.dtype.value));
      for (const int64_t value : constant.values)
        if (value < -kMaxCount - 1 || value > kMaxCount)
          throw DovitError(text("constant ", constant.tensor, ": a number of 32 bits expected, got ", value));
    }
    for (const Segment& segment : program_.segments)
      for (const auto* operations : segment.all_operations())
        for (const Operation& operation : *operations) std::visit([&](const auto& one) { check(one); }, operation);
  }

 private:
  void check(const ArenaTensor& tensor) const {
    for (const int64_t operation : {tensor.first, tensor.last})
      if (operation < 0 || operation > kMaxCount)
        throw DovitError(text("tensor ", tensor.name, ": operation ", operation));
    for (const int64_t size : tensor.shape)
      if (size < 0 || size > kMaxCount) throw DovitError(text("tensor ", tensor.name, ": a size of ", size));
    if (tensor.offset < 0 || tensor.offset % kArenaAlignment)
      throw DovitError(
          text("tensor ", tensor.name, ": a multiple of ", kArenaAlignment, " expected, got offset ", tensor.offset));
    expect_at_most(tensor.offset, kMaxMemoryBytes, text("the offset of tensor ", tensor.name));
    expect_at_most(tensor.offset + tensor.bytes(), program_.arena_bytes,
                   text("the end of tensor ", tensor.name, ", in bytes"));
    const auto same = [&](const ArenaTensor& other) { return other.name == tensor.name; };
    if (std::count_if(program_.tensors.begin(), program_.tensors.end(), same) > 1)
      throw DovitError(text("two tensors ", tensor.name));
  }

  void check_result(const std::string& name, int64_t bytes) const {
    const ArenaTensor& tensor = program_.tensor(name);
    expect_at_most(bytes, tensor.bytes(), text("what is read of ", name, ", in bytes"));
    expect_at_most(tensor.offset + bytes, program_.result_bytes, text("the end of result ", name, ", in bytes"));
  }

  void check(const RunPlan& run) const {
    for (const auto* bindings : {&run.inputs, &run.outputs})
      for (const Binding& binding : *bindings) {
        ArenaTensor largest;
        largest.dtype = binding.dtype;
        largest.shape = binding.resolve(program_.tokens);
        expect_at_most(largest.bytes(), program_.tensor(binding.tensor).bytes(),
                       text(binding.name, " of plan ", run.name, ", in bytes"));
      }
    for (const int64_t most : run.profiles)
      if (most < 0 || most > kMaxCount) throw DovitError(text("plan ", run.name, ": a profile up to ", most));
    if (!std::is_sorted(run.profiles.begin(), run.profiles.end()))
      throw DovitError(text("the profiles of plan ", run.name, " do not rise"));
  }

  void check(const LaunchKernel& launch) const {
    for (const auto& [field, argument] : launch.arguments) {
      if (const auto* kept = std::get_if<Kept>(&argument))
        expect_at_most(program_.tokens + kept->plus, kMaxCount, text(field, " of ", launch.name));
      if (const auto* address = std::get_if<Address>(&argument))
        expect_at_most(address->offset + 1, program_.tensor(address->tensor).bytes(),
                       text(field, " of ", launch.name, ", in bytes"));
    }
    if (launch.scratch)
      for (const int64_t number : *launch.scratch)
        if (number < 0 || number > kMaxCount) throw DovitError(text("scratch of ", launch.name, ": ", number));
  }

  void check(const Copy& copy) const {
    expect_at_most(program_.tensor(copy.source).bytes(), program_.tensor(copy.target).bytes(),
                   text("copy ", copy.name, ", in bytes"));
  }

  const Program& program_;
};

template <class Value>
void expect(const Value& found, const Value& expected, const std::string& what) {
  if (found != expected) throw DovitError(text(what, ": ", expected, " expected, got ", found));
}

// A plan that is run is one of the set, with the tensors and as many profiles as the manifest says.
void check_fits(const RunPlan& run, const PlanSet& plans) {
  const auto named = [&](const PlanStep& step) { return step.plan && step.name == run.name; };
  const auto step = std::find_if(plans.steps.begin(), plans.steps.end(), named);
  if (step == plans.steps.end()) throw DovitError(text("there is no plan ", run.name));
  for (const auto& [bindings, specs] :
       {std::pair(&run.inputs, &step->inputs), std::pair(&run.outputs, &step->outputs)}) {
    const auto same = [](const Binding& binding, const TensorSpec& spec) {
      return binding.name == spec.name && binding.dtype.value == spec.dtype.value;
    };
    if (!std::equal(bindings->begin(), bindings->end(), specs->begin(), specs->end(), same))
      throw DovitError(text("plan ", run.name, " has other tensors"));
  }
  expect(run.profiles.size(), step->plan->profiles.size(), text("profiles of plan ", run.name));
}

// What the host writes and reads, and the plans, are as the manifest says.
void check_fits(const Program& program, const Manifest& manifest, const PlanSet& plans) {
  expect(program.batch, plans.batch, "batch");
  expect(program.tokens, manifest.tokens(), "tokens");
  expect(program.decisions.size(), manifest.decisions.size(), "decisions");
  const auto& [height, width] = manifest.image_size;
  const ArenaTensor &image = program.tensor("image"), &labels = program.tensor("labels"),
                    &logits = program.tensor("logits");
  if (image.shape != Shape{program.batch, height, width, 3} || !(image.dtype == "uint8"))
    throw DovitError(text("image: uint8 ", program.batch, "×", height, "×", width, "×3 expected"));
  const bool whole =
      labels.dtype == "uint8" || labels.dtype == "int16" || labels.dtype == "int32" || labels.dtype == "int64";
  if (labels.shape != Shape{program.batch, height, width} || !whole)
    throw DovitError(text("labels: integers ", program.batch, "×", height, "×", width, " expected"));
  if (!(logits.dtype == "float32") || logits.shape.size() != 4 || logits.shape[0] != program.batch ||
      logits.shape[1] != manifest.classes || logits.shape[2] < 1 || logits.shape[3] < 1)
    throw DovitError(text("logits: float32 of ", manifest.classes, " classes expected"));
  expect_at_most(static_cast<int64_t>(8 * manifest.capacities.size()), program.tensor("capacities").bytes(),
                 "the capacities, in bytes");
  for (const Segment& segment : program.segments)
    for (const auto* operations : segment.all_operations())
      for (const Operation& operation : *operations)
        if (const auto* run = std::get_if<RunPlan>(&operation)) check_fits(*run, plans);
}

}  // namespace

int64_t ArenaTensor::bytes() const {
  // larger than any that is allowed, without overflow
  int64_t bytes = static_cast<int64_t>(item_bytes(dtype_of(TensorSpec{name, dtype, {}})));
  for (const int64_t size : shape) {
    if (size && bytes > kMaxMemoryBytes / size) return 2 * kMaxMemoryBytes;
    bytes *= size;
  }
  return bytes;
}

Shape Binding::resolve(int64_t kept) const {
  Shape sizes;
  for (const Size1d& size : shape) {
    const auto* more = std::get_if<Kept>(&size);
    sizes.push_back(more ? kept + more->plus : std::get<int64_t>(size));
  }
  return sizes;
}

size_t RunPlan::profile(int64_t kept) const {
  const auto found = std::find_if(profiles.begin(), profiles.end(), [&](int64_t most) { return kept <= most; });
  return found == profiles.end() ? 0 : static_cast<size_t>(found - profiles.begin());
}

const ArenaTensor& Program::tensor(const std::string& name) const {
  for (const ArenaTensor& tensor : tensors)
    if (tensor.name == name) return tensor;
  throw DovitError(text("no tensor '", name, "' in the arena"));
}

Program parse_program(const std::string& content, const std::string& file, const std::string& again) {
  Program program;
  if (nested_too_deeply(content)) throw DovitError(text(file, ": nested too deeply; ", again));
  try {
    read(Json::parse(content), program, Where{});
  } catch (const Json::exception&) {
    throw DovitError(text(file, ": not JSON; ", again));
  } catch (const FieldError& error) {
    throw DovitError(text(file, ": ", error.sentence(again)));
  }
  try {
    BoundsCheck(program).run();
  } catch (const DovitError& error) {
    throw DovitError(text(file, ": the program is wrong (", error.what(), "); ", again));
  }
  return program;
}

Program read_program(const std::filesystem::path& root, const Manifest& manifest, const PlanSet& plans) {
  const std::string again = text("build the plans again: dovit-export --engine ", root.string(), " --backend ",
                                 plans.flavour.value, " --precision ", plans.precision.value);
  if (!plans.program)
    throw DovitError(text(root.string(), ": the ", plans.name(),
                          " plans have no program, for an older dovit has built them; ", again));
  const std::filesystem::path file = root / *plans.program;
  std::string content;
  try {
    content = RegularFile(file).content(kMaxFileBytes);
  } catch (const FileError& error) {
    throw DovitError(text(file.string(), ": cannot be read: ", error.what()));
  }
  Program program = parse_program(content, file.string(), again);
  try {
    check_fits(program, manifest, plans);
  } catch (const DovitError& error) {
    throw DovitError(text(file.string(), ": does not fit ", kManifestName, " (", error.what(), "); ", again));
  }
  return program;
}

}  // namespace dovit::runtime
