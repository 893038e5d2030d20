#include "gpu/graph_mode.h"

#include "errors.h"

namespace dovit::runtime {

GraphMode::GraphMode(const Program& program, const Transfers& transfers, const Stream& stream, PixelSource source)
    : program_(program), stream_(stream), graph_(program.plans().device) {
  const Device& device = program.device();
  const std::vector<int64_t>& capacities = program.manifest().capacities;
  std::vector<CUgraphConditionalHandle> conditions;
  for (size_t k = 0; k < program.manifest().decisions.size(); ++k)
    conditions.push_back(add_condition(device, graph_.get(), static_cast<unsigned>(capacities.size())));
  conditions.push_back(0);  // the last segment decides nothing

  Leaves leaves = capture_into(device, graph_.get(), {}, stream.get(), [&] {
    if (source == PixelSource::kPinned) transfers.enqueue_image(stream.get());
    transfers.enqueue_thresholds(stream.get());
    program.enqueue({0, program.manifest().tokens(), {}, conditions[0]}, stream.get());
  });
  for (size_t number = 1; number < conditions.size(); ++number) {
    Switch made = add_switch(device, graph_.get(), leaves, conditions[number - 1], capacities.size());
    for (size_t k = 0; k < capacities.size(); ++k)
      capture_body(made.bodies[k], number, capacities[k], conditions[number]);
    leaves = std::move(made.node);
  }
  capture_into(device, graph_.get(), leaves, stream.get(), [&] {
    program.enqueue_decoder(stream.get());
    transfers.enqueue_results(stream.get());
  });
  graph_.finish();
}

void GraphMode::capture_body(CUgraph body, size_t number, int64_t kept, CUgraphConditionalHandle next) const {
  const Device& device = program_.device();
  capture_into(device, body, {}, stream_.get(), [&] { program_.enqueue({number, kept, {}, next}, stream_.get()); });
  check_nodes(device, body, text("block ", number + 1, " with ", kept, " tokens"));
}

}  // namespace dovit::runtime
