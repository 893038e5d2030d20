#include "gpu/runner.h"

#include "errors.h"
#include "gpu/graph_mode.h"

namespace dovit::runtime {

Runner::Runner(const Plans& plans, bool graph)
    : plans_(plans),
      graph_(graph),
      stream_(plans.device),
      program_(plans),
      transfers_(program_),
      exact_(program_, transfers_, stream_) {
  program_.warm_up(stream_);
  captured(PixelSource::kPinned);
}

Pass Runner::run(const Frame& frame, const Request& request) {
  const bool exact = request.counts || request.schedule == Schedule::kExact;
  const PixelSource source = frame.device_stride ? PixelSource::kDevice : PixelSource::kPinned;
  const auto height = static_cast<size_t>(plans_.manifest.image_size[0]);
  const size_t row = static_cast<size_t>(plans_.manifest.image_size[1]) * 3;
  if (frame.ready) static_cast<const Moment*>(frame.ready.get())->hold_back(stream_.get());
  if (source == PixelSource::kDevice)
    copy_rows(*plans_.device, {reinterpret_cast<void*>(program_.place(kImage)), row, true},
              {const_cast<uint8_t*>(frame.pixels), frame.device_stride, true}, row, height, stream_.get());
  else
    transfers_.write(frame.pixels);
  // ξ = 0 stops every token, and the only capacity is filled up with those of lowest confidence
  transfers_.write(request.counts ? std::vector<double>(request.counts->size(), 0.0) : request.thresholds);
  if (exact)
    exact_.launch(request, source);
  else
    captured(source).launch();
  stream_.wait();
  Pass pass = transfers_.read();
  if (frame.device_labels) hand_over(pass.labels, frame);
  if (request.logits) pass.logits = read_logits();
  return pass;
}

const CapturedMode& Runner::captured(PixelSource source) {
  std::unique_ptr<CapturedMode>& mode = source == PixelSource::kPinned ? from_pinned_ : from_device_;
  if (!mode && graph_) mode = std::make_unique<GraphMode>(program_, transfers_, stream_, source);
  if (!mode) mode = std::make_unique<SegmentedMode>(program_, transfers_, stream_, source);
  return *mode;
}

// From the device's own labels, unless a plan has made larger integers than a caller gets.
void Runner::hand_over(const Tensor& labels, const Frame& frame) const {
  const auto height = static_cast<size_t>(plans_.manifest.image_size[0]);
  const size_t row = labels.bytes() / height;
  const bool same = program_.memory().bytes.at("labels") == labels.bytes();
  const Rows from{same ? reinterpret_cast<void*>(program_.place("labels")) : labels.data, row, same};
  copy_rows(*plans_.device, {frame.device_labels, frame.device_labels_stride, true}, from, row, height, stream_.get());
  stream_.wait();
}

Tensor Runner::read_logits() const {
  const TensorSpec& spec = program_.made("logits");
  Tensor logits = make_tensor(dtype_of(spec), program_.full_shape(spec));
  if (logits.type != DType::kFloat32) throw DovitError("the plans' logits are not float32; build them again");
  copy(*plans_.device, address(logits.data), program_.place(spec.name), logits.bytes(), stream_.get());
  stream_.wait();
  return logits;
}

}  // namespace dovit::runtime
