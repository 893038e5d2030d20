#include "session/session.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "errors.h"
#include "image/resize.h"
#include "image/upsample.h"
#include "session/arguments.h"
#include "session/backends.h"

namespace dovit::runtime {

Session::Loaded Session::load(const std::string& path, const LoadOptions& options) {
  check_backend(options);
  return with_bundle(path, [&](Bundle opened) {
    auto bundle = std::make_unique<const Bundle>(std::move(opened));
    if (options.thresholds) checked_thresholds(bundle->manifest, *options.thresholds);  // before what takes long
    if (options.schedule) checked_schedule(options.backend, *options.schedule);
    Opened executor = open_executor(*bundle, path, options);
    return Loaded{std::move(bundle), std::move(executor)};
  });
}

Session::Session(Loaded loaded, const LoadOptions& options)
    : bundle_(std::move(loaded.bundle)),
      executor_(std::move(loaded.opened.executor)),
      backend_(options.backend == "auto" ? "onnxruntime" : options.backend),
      provider_(std::move(loaded.opened.provider)),
      precision_(std::move(loaded.opened.precision)),
      thresholds_(options.thresholds ? checked_thresholds(manifest(), *options.thresholds) : manifest().thresholds),
      schedule_(options.schedule.value_or(executor_->default_schedule())) {}

Session::Session(const std::string& path, const LoadOptions& options) : Session(load(path, options), options) {}

Session::Session(Bundle bundle, std::unique_ptr<Executor> executor, const LoadOptions& options)
    : Session(Loaded{std::make_unique<const Bundle>(std::move(bundle)), {std::move(executor), "", ""}}, options) {}

Request Session::request(const RunOptions& options) const {
  Request request;
  request.thresholds = options.thresholds ? checked_thresholds(manifest(), *options.thresholds) : thresholds_;
  request.schedule = checked_schedule(backend_, options.schedule.value_or(schedule_));
  if (options.counts) request.counts = checked_counts(manifest(), *options.counts);
  request.logits = options.return_logits;
  return request;
}

Result Session::run(const Pixels& image, const Request& request, const RunOptions& options) const {
  try {
    Result result =
        mode(options) == Mode::kWhole ? run_whole(image, request, options) : run_slide(image, request, options);
    if (!options.return_logits) result.logits = Tensor{};
    return result;
  } catch (const std::bad_alloc&) {
    throw DovitError("not enough memory for this image: use a smaller one, or mode slide");
  }
}

// The result of one pass, and per decision which positions stay and the confidence (NaN where already stopped).
Result Session::window_result(const Frame& frame, const Request& request) const {
  Pass pass = executor_->run(frame, request);
  const auto count = static_cast<int64_t>(manifest().decisions.size());
  const int64_t height = manifest().grid_height(), width = manifest().grid_width(), tokens = manifest().tokens();
  Result result;
  result.filled = window();
  result.tokens = tokens;
  result.keep_maps = make_tensor(DType::kUint8, {1, count, height, width});
  result.confidence_maps = make_tensor(DType::kFloat32, {1, count, height, width});
  auto* keep = result.keep_maps.as<uint8_t>();
  auto* confidence = result.confidence_maps.as<float>();
  std::memset(keep, 0, result.keep_maps.bytes());
  std::fill_n(confidence, count * tokens, std::numeric_limits<float>::quiet_NaN());
  for (size_t k = 0; k < pass.decisions.size(); ++k) {
    const DecisionResult& decided = pass.decisions[k];
    const size_t map = k * static_cast<size_t>(tokens);
    for (size_t m = 0; m < decided.index.size(); ++m) confidence[map + decided.index[m]] = decided.confidence[m];
    for (const int32_t m : decided.keep) keep[map + decided.index[m]] = 1;
    result.kept.push_back(static_cast<int64_t>(decided.keep.size()));
  }
  result.kept.resize(static_cast<size_t>(count), 0);
  result.labels = std::move(pass.labels);
  if (result.labels.data) result.labels.shape.erase(result.labels.shape.begin());  // [H, W]
  result.logits = std::move(pass.logits);
  if (result.logits.data) result.logits.shape.erase(result.logits.shape.begin());  // [C, h', w']
  return result;
}

// Where the labels are written: the caller's place on the host, or memory of the result's own.
LabelsPlace Session::place_for(Result& result, Size size, const LabelsPlace& given) const {
  result.labels = Tensor{};
  if (given.data && !given.on_device) return given;
  result.labels = make_tensor(label_type(manifest()), {size.height, size.width});
  return {result.labels.data, static_cast<size_t>(size.width) * label_bytes()};
}

// Labels that lie in the result, although the caller has a place for them, are brought there.
void Session::hand_over(Result& result, const RunOptions& options) const {
  const LabelsPlace& place = options.labels;
  if (!place.data || !result.labels.data) return;
  const auto rows = static_cast<size_t>(result.labels.shape[0]);
  const size_t row = result.labels.bytes() / rows;
  if (place.on_device)
    device_memory()->write(place.data, place.stride, result.labels.data, row, rows, options.stream);
  else
    for (size_t y = 0; y < rows; ++y)
      std::memcpy(static_cast<char*>(place.data) + y * place.stride, result.labels.as<char>() + y * row, row);
  result.labels = Tensor{};
}

// Where the executor does not take its size, the image is resized to the bundle's, and its logits are resized back.
Result Session::run_whole(const Pixels& image, const Request& request, const RunOptions& options) const {
  const Size size = image.size();
  if (!accepts_size(size, options)) return run_fitted(image, request, options);
  Frame frame{image.data(), size, image.device_stride(), options.ready};
  if (options.labels.on_device) {
    frame.device_labels = options.labels.data;
    frame.device_labels_stride = options.labels.stride;
  }
  Result result = window_result(frame, request);
  if (frame.device_labels) result.labels = Tensor{};
  hand_over(result, options);
  return result;
}

Result Session::run_fitted(const Pixels& image, const Request& request, const RunOptions& options) const {
  const Size size = image.size();
  const Size inside = keep_ratio(options) ? fitted_size(size, window()) : window();
  const Pixels scaled = padded(resized(image, inside), window(), manifest().mean);
  Request wanted = request;
  wanted.logits = true;
  Result result = window_result({scaled.data(), window(), 0, options.ready}, wanted);
  result.filled = inside;
  const Tensor& logits = result.logits;
  const auto classes = static_cast<int>(logits.shape[0]);
  const Size from{static_cast<int>(logits.shape[1]), static_cast<int>(logits.shape[2])};
  const LabelsPlace to = place_for(result, size, options.labels);
  if (!keep_ratio(options)) {
    labels_from_logits(logits.as<float>(), classes, from, size, to.data, to.stride, label_bytes());
  } else {  // as mmsegmentation: to the bundle's size, cut, and to the image's
    Upsampler upsampler(logits.as<float>(), classes, from, window());
    LabelWriter writer(classes, inside, size, to.data, to.stride, label_bytes());
    const auto across = static_cast<size_t>(window().width), width = static_cast<size_t>(inside.width);
    for (int y = 0; y < inside.height; ++y) {
      const float* row = upsampler.row(y);  // [C, W]
      for (size_t c = 0; c < static_cast<size_t>(classes); ++c)
        std::copy(row + c * across, row + c * across + width, writer.place(y) + c * width);
      writer.done(y);
    }
  }
  hand_over(result, options);
  return result;
}

}  // namespace dovit::runtime
