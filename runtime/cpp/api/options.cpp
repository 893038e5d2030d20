#include "api/options.h"

#include <cstring>

#include "errors.h"

namespace dovit::runtime {

namespace {

std::optional<Schedule> schedule_of(int given) {
  switch (given) {
    case DOVIT_DEFAULT_SCHEDULE:
      return std::nullopt;
    case DOVIT_EXACT:
      return Schedule::kExact;
    case DOVIT_BUCKETED:
      return Schedule::kBucketed;
    case DOVIT_ROUNDED:
      return Schedule::kRounded;
  }
  throw UsageError(text("unknown schedule ", given, ": choose exact, rounded or bucketed"));
}

template <class T>
std::optional<std::vector<T>> list_of(const T* values, size_t count, const char* name) {
  if (!values && count) throw UsageError(text(name, " is NULL, and its count ", count));
  if (!values) return std::nullopt;
  return std::vector<T>(values, values + count);
}

}  // namespace

bool on_device(int memory, const char* what, const DeviceMemory* device) {
  if (memory == DOVIT_HOST) return false;
  if (memory != DOVIT_DEVICE)
    throw UsageError(text("unknown memory ", memory, " for ", what, ": choose host or device"));
  if (device) return true;
  throw Unsupported(text(what,
                         " in device memory need the backend tensorrt or tensorrt-rtx, and this session runs "
                         "onnxruntime on the CPU; pass host memory"));
}

void check_stream(const void* stream, const DeviceMemory* device) {
  if (stream && !device)
    throw Unsupported(
        "a CUDA stream needs the backend tensorrt or tensorrt-rtx, and this session runs onnxruntime on the CPU; pass "
        "NULL");
}

LoadOptions load_options(const dovit_load_options& given) {
  LoadOptions options;
  if (given.backend) options.backend = given.backend;
  if (given.device) options.device = given.device;
  if (given.onnxruntime) options.onnxruntime = given.onnxruntime;
  if (given.tensorrt) options.tensorrt = given.tensorrt;
  if (given.plugins) options.plugins = given.plugins;
  if (given.precision) options.precision = given.precision;
  if (given.provider) options.provider = given.provider;
  if (given.openvino) options.openvino = given.openvino;
  if (given.cache) options.cache = given.cache;
  if (given.graph < DOVIT_DEFAULT_GRAPH || given.graph > DOVIT_SEGMENTED)
    throw UsageError(text("unknown graph mode ", given.graph, ": choose whole image or segmented"));
  if (given.graph != DOVIT_DEFAULT_GRAPH) options.graph = given.graph == DOVIT_WHOLE_IMAGE;
  if (given.threads < 0 || given.threads > 4096) throw UsageError(text(given.threads, " threads: give 0 for all CPUs"));
  if (given.workers < 0 || given.workers > 256) throw UsageError(text(given.workers, " workers: give 1 or a few"));
  options.threads = given.threads;
  options.workers = given.workers ? given.workers : 1;
  options.low_memory = given.low_memory != 0;
  options.skip_accuracy_check = given.skip_accuracy_check != 0;
  options.schedule = schedule_of(given.schedule);
  options.thresholds = list_of(given.thresholds, given.threshold_count, "thresholds");
  return options;
}

RunOptions run_options(const dovit_run_options& given, const Session& session, const dovit_image& image) {
  if (given.mode < DOVIT_DEFAULT_MODE || given.mode > DOVIT_SLIDE)
    throw UsageError(text("unknown mode ", given.mode, ": choose whole or slide"));
  if (given.resize < DOVIT_DEFAULT_RESIZE || given.resize > DOVIT_KEEP_RATIO)
    throw UsageError(text("unknown resize ", given.resize, ": choose stretch or keep ratio"));
  const std::shared_ptr<const DeviceMemory> device = session.device_memory();
  check_stream(given.stream, device.get());
  RunOptions options;
  options.stream = given.stream;
  if (given.mode != DOVIT_DEFAULT_MODE) options.mode = given.mode == DOVIT_WHOLE ? Mode::kWhole : Mode::kSlide;
  if (given.resize != DOVIT_DEFAULT_RESIZE) options.keep_ratio = given.resize == DOVIT_KEEP_RATIO;
  options.schedule = schedule_of(given.schedule);
  options.thresholds = list_of(given.thresholds, given.threshold_count, "thresholds");
  options.counts = list_of(given.counts, given.count_count, "counts");
  options.return_logits = given.return_logits != 0;
  if (given.labels) {
    options.labels.on_device = on_device(given.labels_memory, "labels", device.get());
    const size_t row = static_cast<size_t>(image.width) * session.label_bytes();
    options.labels.data = given.labels;
    options.labels.stride = given.labels_stride ? given.labels_stride : row;
    if (options.labels.stride < row || options.labels.stride % session.label_bytes())
      throw UsageError(text("labels_stride ", given.labels_stride, " does not fit rows of ", row, " bytes"));
  }
  if (given.stream || options.labels.on_device || (device && image.memory == DOVIT_DEVICE))
    options.ready = device->after(given.stream);
  return options;
}

Pixels pixels(const dovit_image& image, const Session& session, const RunOptions& options) {
  const std::shared_ptr<const DeviceMemory> device = session.device_memory();
  const bool there = on_device(image.memory, "pixels", device.get());
  if (!image.data) throw UsageError("the image's data are NULL: pass its pixels");
  constexpr int kMaxPixels = 1 << 24;  // of a side
  if (image.width < 1 || image.height < 1 || image.width > kMaxPixels || image.height > kMaxPixels)
    throw UsageError(text("an image of ", image.height, "×", image.width, " cannot be"));
  if (image.format < DOVIT_RGB || image.format > DOVIT_GREY)
    throw UsageError(text("unknown format ", image.format, ": choose RGB, BGR, RGBA, BGRA or grey"));
  const auto format = static_cast<Format>(image.format);  // the same order
  const size_t row = static_cast<size_t>(image.width) * channels(format);
  const size_t stride = image.stride ? image.stride : row;
  if (stride < row) throw UsageError(text("stride ", stride, " is less than a row of ", row, " bytes"));
  const Size size{image.height, image.width};
  const auto* data = static_cast<const uint8_t*>(image.data);
  if (!there) return rgb_pixels(data, size, stride, format);
  if (format == Format::kRgb && session.accepts_size(size, options))
    return Pixels(data, size, stride);  // as they are wanted
  std::vector<uint8_t> copied(row * size.height);
  device->read(copied.data(), data, stride, row, static_cast<size_t>(size.height), options.stream);
  if (format == Format::kRgb) return Pixels(std::move(copied), size);
  return rgb_pixels(copied.data(), size, row, format);
}

template <class Struct>
size_t given_bytes(const Struct& given, const char* name) {
  const size_t bytes = given.size;
  // a multiple of the alignment never ends inside a field
  if (bytes <= sizeof given.size || bytes % alignof(Struct))
    throw UsageError(text(name, " has the size ", bytes, ", which no dovit.h gives it: start it with its _INIT"));
  if (bytes > sizeof(Struct))
    throw UsageError(text(name, " has the size ", bytes, ", and in libdovit_runtime ", DOVIT_VERSION, " ",
                          sizeof(Struct), ": start it with its _INIT; where that was done, the program was compiled ",
                          "with a newer dovit.h: compile it with this library's, or use a newer library"));
  return bytes;
}

template <class Struct>
Struct whole_struct(const Struct* given, const Struct& defaults, const char* name) {
  Struct whole = defaults;
  if (given) std::memcpy(&whole, given, given_bytes(*given, name));
  whole.size = sizeof whole;
  return whole;
}

template dovit_load_options whole_struct(const dovit_load_options*, const dovit_load_options&, const char*);
template dovit_run_options whole_struct(const dovit_run_options*, const dovit_run_options&, const char*);
template size_t given_bytes(const dovit_info&, const char*);

}  // namespace dovit::runtime
