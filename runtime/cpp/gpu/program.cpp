#include "gpu/program.h"

#include <algorithm>
#include <cstring>

#include "errors.h"

namespace dovit::runtime {

namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

// The fields that a program gives must be those that the library's header has.
void check_arguments(const LaunchKernel& launch) {
  const KernelLayout& layout = kernel_layout(launch.kernel);
  const auto same = [](const auto& argument, const KernelLayout::Field& field) { return argument.first == field.name; };
  if (!std::equal(launch.arguments.begin(), launch.arguments.end(), layout.fields.begin(), layout.fields.end(), same))
    throw DovitError(text("the kernel ", launch.kernel, " takes ",
                          joined(layout.fields, [](const auto& field) { return field.name; }), ", not ",
                          joined(launch.arguments, [](const auto& one) { return one.first; }),
                          ": build the plans again with the dovit that this library is of"));
}

}  // namespace

LoadedProgram::LoadedProgram(const Plans& plans) : plans_(plans), scratch_bytes_(most_scratch()) {
  for (const Segment& segment : program().segments)
    for (const auto* operations : segment.all_operations())
      for (const Operation& operation : *operations)
        if (const auto* launch = std::get_if<LaunchKernel>(&operation)) check_arguments(*launch);
  const size_t free = device().free_bytes();
  if (bytes() > free)
    throw DovitError(text("the ", plans.set.name(), " plans need ", mebibytes(bytes()), " on ", device().name,
                          ", of which ", mebibytes(free), " are free: close what else uses it"));
  arena_ = std::make_unique<DeviceBuffer>(plans.device, bytes());
}

CUdeviceptr LoadedProgram::address(const std::string& name) const {
  return arena_->address() + static_cast<size_t>(program().tensor(name).offset);
}

void LoadedProgram::enqueue(const SegmentRun& run, CUstream stream) const {
  const Segment& segment = program().segments[run.segment];
  const bool recurring = run.allowed == Allowed::kCapacities || all_positions(run.segment);
  for (const Operation& operation : run.kept ? segment.operations : segment.if_none_kept)
    std::visit(Overloaded{[&](const RunPlan& plan) {
                            plans_.engines.at(plan.name)->enqueue(call_of(plan, run.kept, recurring, stream));
                          },
                          [&](const LaunchKernel& launch) { enqueue(launch, run, stream); },
                          [&](const Copy& copy) { enqueue(copy, stream); }},
               operation);
}

PlanCall LoadedProgram::call_of(const RunPlan& plan, int64_t kept, bool recurring, CUstream stream) const {
  PlanCall call{{}, {}, kept, plan.profile(kept), scratch(), stream, recurring};
  for (const auto* bindings : {&plan.inputs, &plan.outputs})
    for (const Binding& binding : *bindings) {
      call.addresses[binding.name] = address(binding.tensor);
      call.shapes[binding.name] = binding.resolve(kept);
    }
  return call;
}

void LoadedProgram::enqueue(const LaunchKernel& launch, const SegmentRun& run, CUstream stream) const {
  const KernelLayout& layout = kernel_layout(launch.kernel);
  std::vector<uint64_t> block(layout.bytes / sizeof(uint64_t) + 1);  // aligned for every field
  auto* const bytes = reinterpret_cast<unsigned char*>(block.data());
  const size_t size = layout.bytes;
  std::memcpy(bytes, &size, sizeof size);  // the field `size`, which is the first
  for (size_t k = 0; k < layout.fields.size(); ++k) {
    const KernelLayout::Field& field = layout.fields[k];
    const uint64_t given = value(launch.arguments[k].second, run);
    const auto narrow = static_cast<int32_t>(given);
    if (field.bytes == sizeof narrow)
      std::memcpy(bytes + field.offset, &narrow, sizeof narrow);
    else
      std::memcpy(bytes + field.offset, &given, sizeof given);
  }
  plans_.kernels.launch(launch.kernel, bytes, stream);
}

void LoadedProgram::enqueue(const Copy& copied, CUstream stream) const {
  copy(device(), address(copied.target), address(copied.source),
       static_cast<size_t>(program().tensor(copied.source).bytes()), stream);
}

uint64_t LoadedProgram::value(const Argument& argument, const SegmentRun& run) const {
  const auto variable = [&](const Choice<VariableNames>& name) -> uint64_t {
    const bool capacities = run.allowed == Allowed::kCapacities;
    if (name == "scratch") return scratch();
    if (name == "switch") return run.switch_handle;
    if (name == "capacities") return address(capacities ? "capacities" : "fixed_capacity");
    return capacities ? manifest().capacities.size() : run.allowed == Allowed::kFixed;
  };
  return std::visit(
      Overloaded{[](int64_t number) { return static_cast<uint64_t>(number); },
                 [&](const Kept& kept) { return static_cast<uint64_t>(run.kept + kept.plus); },
                 [&](const Address& at) -> uint64_t { return address(at.tensor) + static_cast<uint64_t>(at.offset); },
                 [](const ElementType& type) {
                   return static_cast<uint64_t>(kernel_type(dtype_of({"", {type.dtype.value}, {}})));
                 },
                 variable},
      argument);
}

void LoadedProgram::warm_up(const Stream& stream) const {
  device().check(device().driver.cuMemsetD8Async(arena_->address(), 0, bytes(), stream.get()), "cuMemsetD8Async");
  for (const SizedPlan& sized : sized_plans()) enqueue_plan(sized, stream.get());
  write_constants(stream);
  warm_up_kernels(stream);
}

// With all tokens kept, so that each reads valid results of the one before.
void LoadedProgram::warm_up_kernels(const Stream& stream) const {
  const int64_t tokens = program().tokens;
  copy(device(), address("fixed_capacity"), host_address(&tokens), sizeof tokens, stream.get());
  for (size_t number = 0; number <= last_segment(); ++number)
    for (const Operation& operation : program().segments[number].operations) {
      if (const auto* launch = std::get_if<LaunchKernel>(&operation))
        enqueue(*launch, SegmentRun{number, tokens, 0, Allowed::kFixed}, stream.get());
      if (const auto* copied = std::get_if<Copy>(&operation)) enqueue(*copied, stream.get());
    }
  stream.wait();
}

std::vector<SizedPlan> LoadedProgram::sized_plans() const {
  std::vector<SizedPlan> found;
  for (size_t number = 0; number <= last_segment(); ++number) {
    const std::vector<int64_t> all{program().tokens};
    for (const int64_t tokens : all_positions(number) ? all : manifest().capacities)
      for (const Operation& operation : program().segments[number].operations)
        if (const auto* plan = std::get_if<RunPlan>(&operation); plan && tokens)
          found.push_back({plan, number, tokens});
  }
  return found;
}

void LoadedProgram::enqueue_plan(const SizedPlan& sized, CUstream stream) const {
  plans_.engines.at(sized.plan->name)->enqueue(call_of(*sized.plan, sized.tokens, true, stream));
}

std::string LoadedProgram::why_not_capturable(const SizedPlan& sized, CUstream stream) const {
  return plans_.engines.at(sized.plan->name)->why_not_capturable(call_of(*sized.plan, sized.tokens, true, stream));
}

// Tensors that no pass changes: the program's constants, and the bundle's capacities.
void LoadedProgram::write_constants(const Stream& stream) const {
  std::vector<std::vector<uint8_t>> written;  // until the copies are over
  const auto write = [&](const std::string& name, const std::vector<int64_t>& values) {
    const size_t item = program().tensor(name).dtype == "int64" ? sizeof(int64_t) : sizeof(int32_t);
    std::vector<uint8_t>& bytes = written.emplace_back(values.size() * item);
    for (size_t k = 0; k < values.size(); ++k) std::memcpy(bytes.data() + k * item, &values[k], item);
    if (!bytes.empty()) copy(device(), address(name), host_address(bytes.data()), bytes.size(), stream.get());
  };
  for (const Constant& constant : program().constants) write(constant.tensor, constant.values);
  write("capacities", manifest().capacities);
  stream.wait();
}

size_t LoadedProgram::most_scratch() const {
  size_t most = 0;
  for (const auto& [name, engine] : plans_.engines) most = std::max(most, engine->scratch_bytes());
  for (const Segment& segment : program().segments)
    for (const auto* operations : segment.all_operations())
      for (const Operation& operation : *operations)
        if (const auto* launch = std::get_if<LaunchKernel>(&operation); launch && launch->scratch)
          most = std::max(most, plans_.kernels.scratch_bytes(launch->kernel, *launch->scratch));
  return most;
}

}  // namespace dovit::runtime
