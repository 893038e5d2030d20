#include "gpu/stepped_modes.h"

#include <algorithm>

#include "errors.h"

namespace dovit::runtime {

Counter::Counter(const Program& program) : program_(program), count_(program.plans().device, sizeof(int32_t)) {}

void Counter::enqueue(size_t decision, CUstream stream) const {
  copy(program_.device(), address(count_.as()), program_.place(capacity_place(decision)), sizeof(int32_t), stream);
}

int64_t Counter::read(const Stream& stream) const {
  stream.wait();
  const int32_t count = *count_.as<int32_t>();
  if (count < 0 || count > program_.manifest().tokens()) throw DovitError(text("a decision kept ", count, " tokens"));
  return count;
}

SegmentedMode::SegmentedMode(const Program& program, const Transfers& transfers, const Stream& stream,
                             PixelSource source, const std::set<SegmentKey>& uncapturable)
    : stream_(stream), counter_(program) {
  const size_t decisions = program.manifest().decisions.size();
  const auto capture = [&](SegmentKey key, Launch work) -> Launch {
    if (uncapturable.count(key)) return work;
    const auto graph = std::make_shared<const Graph>(program.plans().device, stream.get(), work);
    return [graph, &stream] { graph->launch(stream.get()); };
  };
  const auto capture_segment = [&](size_t number, int64_t kept) {
    return capture({number, kept}, [this, &program, &transfers, &stream, source, number, kept, decisions] {
      if (number == 0) {
        if (source == PixelSource::kPinned) transfers.enqueue_image(stream.get());
        transfers.enqueue_thresholds(stream.get());
      }
      program.enqueue({number, kept, {}}, stream.get());
      if (number < decisions && kept) counter_.enqueue(number + 1, stream.get());
    });
  };
  first_ = capture_segment(0, program.manifest().tokens());
  after_.resize(decisions);
  for (size_t number = 1; number <= decisions; ++number)
    for (const int64_t kept : program.manifest().capacities) after_[number - 1][kept] = capture_segment(number, kept);
  decoder_ = capture({decisions + 1, 0}, [&program, &transfers, &stream] {
    program.enqueue_decoder(stream.get());
    transfers.enqueue_results(stream.get());
  });
}

void SegmentedMode::launch() const {
  first_();
  for (const auto& graphs : after_) {
    const int64_t kept = counter_.read(stream_);
    const auto found = graphs.find(kept);
    if (found == graphs.end()) throw DovitError(text("a decision kept ", kept, " tokens, which is no capacity"));
    found->second();
    if (kept == 0) break;
  }
  decoder_();
}

ExactMode::ExactMode(const Program& program, const Transfers& transfers, const Stream& stream)
    : program_(program),
      transfers_(transfers),
      stream_(stream),
      counter_(program),
      only_(program.plans().device, sizeof(int64_t) * std::max<size_t>(program.manifest().decisions.size(), 1)) {}

void ExactMode::launch(const Request& request, PixelSource source) const {
  const CUstream stream = stream_.get();
  const size_t decisions = program_.manifest().decisions.size();
  if (source == PixelSource::kPinned) transfers_.enqueue_image(stream);
  transfers_.enqueue_thresholds(stream);
  int64_t came = program_.manifest().tokens(), kept = came;
  for (size_t number = 0; number <= decisions; ++number) {
    if (number) {
      counter_.enqueue(number, stream);
      came = kept;
      kept = counter_.read(stream_);
    }
    if (request.counts && number < decisions) {
      int64_t& only = only_.as<int64_t>()[number];
      only = (*request.counts)[number];
      copy(program_.device(), program_.place(kOnlyCapacity), address(&only), sizeof only, stream);
    }
    program_.enqueue({number, kept, came, 0, request.counts ? Allowed::kFixed : Allowed::kAny}, stream);
    if (kept == 0) break;
  }
  program_.enqueue_decoder(stream);
  transfers_.enqueue_results(stream);
}

}  // namespace dovit::runtime
