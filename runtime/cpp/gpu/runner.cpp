#include "gpu/runner.h"

#include <cstdio>

#include "errors.h"

namespace dovit::runtime {

Runner::Runner(const Plans& plans, std::optional<bool> graph)
    : plans_(plans),
      graph_(graph.value_or(plans.device->can_switch())),
      size_{static_cast<int>(plans.manifest.image_size[0]), static_cast<int>(plans.manifest.image_size[1])},
      stream_(plans.device),
      program_(plans),
      transfers_(program_),
      exact_(program_, transfers_, stream_),
      resizer_(plans.device, plans.kernels, size_),
      resized_labels_(program_) {
  program_.warm_up(stream_);
  Obstacles obstacles = find_obstacles(program_, stream_);
  if (!obstacles.sentences.empty() && graph.value_or(false))
    throw DovitError(text(obstacles.sentences[0], "; use the segmented mode (graph = DOVIT_SEGMENTED)"));
  for (const std::string& sentence : obstacles.sentences)
    if (graph_) std::fprintf(stderr, "dovit: %s: segmented mode instead of one graph\n", sentence.c_str());
  if (!obstacles.sentences.empty()) graph_ = false;
  uncapturable_ = std::move(obstacles.uncapturable);
  captured(PixelSource::kPinned);
}

void Runner::prepare(const Frame& frame) {
  if (!resizes(frame)) return;
  resizer_.prepare(frame.size);
  resized_labels_.prepare(frame.size);
}

Pass Runner::run(const Frame& frame, const Request& request) {
  const bool exact = request.counts || request.schedule == Schedule::kExact;
  const PixelSource source = frame.device_stride || resizes(frame) ? PixelSource::kDevice : PixelSource::kPinned;
  const auto height = static_cast<size_t>(size_.height), row = static_cast<size_t>(size_.width) * 3;
  if (frame.ready) static_cast<const Event*>(frame.ready.get())->make_wait(stream_.get());
  if (resizes(frame))
    resizer_.enqueue(frame, program_.address("image"), stream_.get());
  else if (source == PixelSource::kDevice)
    copy_rows(*plans_.device, {reinterpret_cast<void*>(program_.address("image")), row, true},
              {const_cast<uint8_t*>(frame.pixels), frame.device_stride, true}, row, height, stream_.get());
  else
    transfers_.write(frame.pixels);
  // ξ = 0 stops every token, and the fixed capacity is filled up with those of lowest confidence
  transfers_.write(request.counts ? std::vector<double>(request.counts->size(), 0.0) : request.thresholds);
  if (exact)
    exact_.launch(request, source);
  else
    captured(source).launch();
  if (resizes(frame)) {
    resized_labels_.enqueue(stream_.get());
    if (!frame.device_labels) resized_labels_.enqueue_download(stream_.get());
  }
  stream_.wait();
  Pass pass = transfers_.read();
  if (!resizes(frame))
    pass.labels = transfers_.labels();
  else if (!frame.device_labels)
    pass.labels = resized_labels_.read();
  if (frame.device_labels) write_device_labels(pass.labels, frame);
  if (request.logits) pass.logits = read_logits();
  return pass;
}

const CapturedMode& Runner::captured(PixelSource source) {
  std::unique_ptr<CapturedMode>& mode = source == PixelSource::kPinned ? from_pinned_ : from_device_;
  if (!mode && graph_) mode = std::make_unique<GraphMode>(program_, transfers_, stream_, source);
  if (!mode) mode = std::make_unique<SegmentedMode>(program_, transfers_, stream_, source, uncapturable_);
  return *mode;
}

// To the caller's device memory: from the labels on the device, or from those on the host where a plan made larger
// integers than a caller gets.
void Runner::write_device_labels(const Tensor& labels, const Frame& frame) const {
  const auto height = static_cast<size_t>(frame.size.height);
  const size_t row = static_cast<size_t>(frame.size.width) * item_bytes(label_type(plans_.manifest));
  const bool there =
      resizes(frame) || static_cast<size_t>(program_.program().tensor("labels").bytes()) == labels.bytes();
  const CUdeviceptr on_device = resizes(frame) ? resized_labels_.address() : program_.address("labels");
  const Rows from{there ? reinterpret_cast<void*>(on_device) : labels.data, row, there};
  copy_rows(*plans_.device, {frame.device_labels, frame.device_labels_stride, true}, from, row, height, stream_.get());
  stream_.wait();
}

Tensor Runner::read_logits() const {
  Tensor logits = make_tensor(DType::kFloat32, program_.program().tensor("logits").shape);
  copy(*plans_.device, host_address(logits.data), program_.address("logits"), logits.bytes(), stream_.get());
  stream_.wait();
  return logits;
}

}  // namespace dovit::runtime
