#include "gpu/modes.h"

#include <algorithm>

#include "errors.h"

namespace dovit::runtime {

GraphMode::GraphMode(const LoadedProgram& program, const Transfers& transfers, const Stream& stream, PixelSource source)
    : program_(program), stream_(stream), graph_(program.plans().device) {
  const Device& device = program.device();
  const std::vector<int64_t>& capacities = program.manifest().capacities;
  const int64_t tokens = program.program().tokens;
  // the default is no body's number: a switch whose decision was not made, since no token was left, runs nothing
  std::vector<CUgraphConditionalHandle> conditions;
  for (size_t k = 0; k < program.program().decisions.size(); ++k)
    conditions.push_back(add_condition(device, graph_.get(), static_cast<unsigned>(capacities.size())));
  conditions.push_back(0);  // the last segment decides nothing

  Dependencies dependencies = capture_into(device, graph_.get(), {}, stream.get(), [&] {
    if (source == PixelSource::kPinned) transfers.enqueue_image(stream.get());
    transfers.enqueue_thresholds(stream.get());
    program.enqueue({0, tokens, conditions[0]}, stream.get());
  });
  for (size_t number = 1; number < program.last_segment(); ++number) {
    Switch made = add_switch(device, graph_.get(), dependencies, conditions[number - 1], capacities.size());
    for (size_t k = 0; k < capacities.size(); ++k)
      capture_body(made.bodies[k], {number, capacities[k], conditions[number]});
    dependencies = std::move(made.node);
  }
  capture_into(device, graph_.get(), dependencies, stream.get(), [&] {
    program.enqueue({program.last_segment(), tokens}, stream.get());
    transfers.enqueue_results(stream.get());
  });
  graph_.instantiate();
}

void GraphMode::capture_body(CUgraph body, const SegmentRun& run) const {
  const Device& device = program_.device();
  capture_into(device, body, {}, stream_.get(), [&] { program_.enqueue(run, stream_.get()); });
  check_nodes(device, body, text("block ", run.segment + 1, " with ", run.kept, " tokens"));
}

KeptCount::KeptCount(const LoadedProgram& program)
    : program_(program), count_(program.plans().device, sizeof(int32_t)) {}

void KeptCount::enqueue(size_t decision, CUstream stream) const {
  const CUdeviceptr source = program_.address(program_.program().decisions[decision].capacity);
  copy(program_.device(), host_address(count_.as()), source, sizeof(int32_t), stream);
}

int64_t KeptCount::read(const Stream& stream) const {
  stream.wait();
  const int32_t count = *count_.as<int32_t>();
  if (count < 0 || count > program_.program().tokens) throw DovitError(text("a decision kept ", count, " tokens"));
  return count;
}

SegmentedMode::SegmentedMode(const LoadedProgram& program, const Transfers& transfers, const Stream& stream,
                             PixelSource source, const std::set<SegmentKey>& uncapturable)
    : stream_(stream), kept_(program) {
  const auto capture = [&](size_t number, int64_t kept) -> Launch {
    const Launch work = [this, &program, &transfers, &stream, source, number, kept] {
      if (number == 0) {
        if (source == PixelSource::kPinned) transfers.enqueue_image(stream.get());
        transfers.enqueue_thresholds(stream.get());
      }
      program.enqueue({number, kept}, stream.get());
      if (number == program.last_segment())
        transfers.enqueue_results(stream.get());
      else if (number < program.program().decisions.size() && kept)
        kept_.enqueue(number, stream.get());
    };
    if (uncapturable.count({number, kept})) return work;
    const auto graph = std::make_shared<const Graph>(program.plans().device, stream.get(), work);
    return [graph, &stream] { graph->launch(stream.get()); };
  };
  first_ = capture(0, program.program().tokens);
  between_.resize(program.program().decisions.size());
  for (size_t number = 1; number < program.last_segment(); ++number)
    for (const int64_t kept : program.manifest().capacities) between_[number - 1][kept] = capture(number, kept);
  last_ = capture(program.last_segment(), program.program().tokens);
}

void SegmentedMode::launch() const {
  first_();
  for (const auto& graphs : between_) {
    const int64_t kept = kept_.read(stream_);
    const auto found = graphs.find(kept);
    if (found == graphs.end()) throw DovitError(text("a decision kept ", kept, " tokens, which is no capacity"));
    found->second();
    if (kept == 0) break;
  }
  last_();
}

ExactMode::ExactMode(const LoadedProgram& program, const Transfers& transfers, const Stream& stream)
    : program_(program),
      transfers_(transfers),
      stream_(stream),
      kept_(program),
      fixed_(program.plans().device, sizeof(int64_t) * std::max<size_t>(program.program().decisions.size(), 1)) {}

void ExactMode::launch(const Request& request, PixelSource source) const {
  const CUstream stream = stream_.get();
  const size_t decisions = program_.program().decisions.size();
  const Allowed allowed = request.counts ? Allowed::kFixed : Allowed::kAny;
  if (source == PixelSource::kPinned) transfers_.enqueue_image(stream);
  transfers_.enqueue_thresholds(stream);
  int64_t kept = program_.program().tokens;
  for (size_t number = 0; number < program_.last_segment(); ++number) {
    if (number) {
      kept_.enqueue(number - 1, stream);
      kept = kept_.read(stream_);
    }
    if (request.counts && number < decisions) {
      int64_t& fixed = fixed_.as<int64_t>()[number];
      fixed = (*request.counts)[number];
      copy(program_.device(), program_.address("fixed_capacity"), host_address(&fixed), sizeof fixed, stream);
    }
    program_.enqueue({number, kept, 0, allowed}, stream);
    if (kept == 0) break;
  }
  program_.enqueue({program_.last_segment(), program_.program().tokens, 0, allowed}, stream);
  transfers_.enqueue_results(stream);
}

}  // namespace dovit::runtime
