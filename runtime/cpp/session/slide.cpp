// `slide` mode: mmsegmentation's sliding window. Logits of all windows are upsampled, summed in their order and divided
// by how many lie there. An image smaller than the window is first enlarged, keeping its proportions, until the window
// fits.
//
// The image is labelled row by row. What is held are the logits of the windows that cover a row, at the decoder's
// resolution, and a few rows of merged ones; the merged logits of the whole image only where they are asked for.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <list>

#include "errors.h"
#include "image/resize.h"
#include "image/upsample.h"
#include "session/session.h"

namespace dovit::runtime {

namespace {

// The limits of runtime/slide.py.
constexpr int64_t kMaxEnlargedPixels = int64_t{1} << 24;  // of an enlarged image: 4096×4096
constexpr int64_t kMaxWindows = 4096;
constexpr int64_t kMaxLogits = int64_t{1} << 30;  // held at a time: 4 GiB

// Where the windows of one dimension begin: every `stride`, the last one clamped to the border.
std::vector<int> starts(int length, int crop, int stride) {
  const int count = std::max(length - crop + stride - 1, 0) / stride + 1;
  std::vector<int> begins;
  for (int k = 0; k < count; ++k) begins.push_back(std::max(std::min(k * stride, length - crop), 0));
  return begins;
}

// How many windows of one dimension cover a position at most.
int64_t most_covering(const std::vector<int>& begins, int crop) {
  size_t most = 0, first = 0;
  for (size_t last = 0; last < begins.size(); ++last) {
    while (begins[first] + crop <= begins[last]) ++first;
    most = std::max(most, last - first + 1);
  }
  return static_cast<int64_t>(most);
}

// Windows that cover each position of one dimension.
std::vector<float> coverage(const std::vector<int>& begins, int crop, int length) {
  std::vector<float> count(static_cast<size_t>(length), 0.0f);
  for (const int begin : begins)
    for (int k = begin; k < begin + crop; ++k) count[static_cast<size_t>(k)] += 1.0f;
  return count;
}

std::string shown(Size size) { return text(size.height, "×", size.width); }

Size enlarged(Size original, Size window) {
  const double scale = std::max(
      {1.0, static_cast<double>(window.height) / original.height, static_cast<double>(window.width) / original.width});
  if (scale == 1.0) return original;
  const double height = std::max<double>(window.height, std::floor(original.height * scale + 0.5));
  const double width = std::max<double>(window.width, std::floor(original.width * scale + 0.5));
  if (height * width > kMaxEnlargedPixels)
    throw UsageError(text("an image of ", shown(original), " is too narrow for windows of ", shown(window),
                          ": enlarged until they fit, it has ", static_cast<int64_t>(height * width),
                          " pixels, more than ", kMaxEnlargedPixels, "; use mode whole"));
  return {static_cast<int>(height), static_cast<int>(width)};
}

// The windows of an image, their order and the room that they take.
struct Windows {
  Windows(Size original, Size image, Size window, const Manifest& manifest)
      : down(starts(image.height, window.height, static_cast<int>(manifest.slide_stride[0]))),
        across(starts(image.width, window.width, static_cast<int>(manifest.slide_stride[1]))) {
    const int64_t count = static_cast<int64_t>(down.size()) * static_cast<int64_t>(across.size());
    if (count > kMaxWindows)
      throw UsageError(text("an image of ", shown(original), " needs ", count, " windows of ", shown(window),
                            ", more than ", kMaxWindows, "; use mode whole, or cut the image into parts"));
  }

  // `each`: logits of one window.
  void check_room(Size original, Size window, int classes, int64_t each) const {
    const int64_t held = most_covering(down, window.height) * static_cast<int64_t>(across.size());
    if (each > kMaxLogits / held)
      throw UsageError(text("an image of ", shown(original), " needs the logits of ", held, " windows at a time, ",
                            classes, " classes of ", each / classes, " each, more than ", kMaxLogits,
                            " values; use mode whole, or cut the image into parts"));
  }

  const std::vector<int> down, across;
};

// The windows that begin in one row, with their logits.
struct WindowRow {
  int y = 0;
  std::vector<Tensor> logits;
  std::vector<Upsampler> upsamplers;
};

// Of one window.
int64_t logits_elements(const Manifest& manifest) {
  for (const TensorSpec& spec : manifest.steps.back().outputs)
    if (spec.name == "logits")
      return Tensor{dtype_of(spec), resolve(spec, full_dims(manifest)), nullptr, nullptr}.elements();
  return 0;  // not reached: check_manifest has seen it
}

// The maps of all windows as one tensor: [windows, …].
Tensor stacked(const std::vector<Tensor>& maps) {
  Shape shape = maps[0].shape;
  shape[0] = static_cast<int64_t>(maps.size());
  Tensor all = make_tensor(maps[0].type, shape);
  for (size_t k = 0; k < maps.size(); ++k)
    std::memcpy(all.as<char>() + k * maps[0].bytes(), maps[k].data, maps[k].bytes());
  return all;
}

}  // namespace

Result Session::run_slide(const Pixels& image, const Request& request, const RunOptions& options) const {
  const Size original = image.size(), size = enlarged(original, window());
  const Windows windows(original, size, window(), manifest());
  const auto classes = static_cast<int>(manifest().classes);
  const auto height = static_cast<size_t>(size.height), width = static_cast<size_t>(size.width);
  windows.check_room(original, window(), classes, logits_elements(manifest()));
  Result result;
  if (options.return_logits) {
    if (static_cast<int64_t>(height * width) > kMaxLogits / classes)
      throw UsageError(text("the logits of an image of ", shown(original), " with ", classes, " classes are ",
                            static_cast<int64_t>(height * width) * classes, " values, more than ", kMaxLogits,
                            "; leave return_logits off, or cut the image into parts"));
    result.logits = make_tensor(DType::kFloat32, {classes, size.height, size.width});
  }
  const Pixels scaled = resized(image, size);
  Request wanted = request;
  wanted.logits = true;
  result.kept.assign(manifest().decisions.size(), 0);
  result.filled = window();
  result.corners.clear();
  std::vector<Tensor> keep_maps, confidence_maps;

  const auto run_row = [&](int y) {
    WindowRow row{y, {}, {}};
    row.upsamplers.reserve(windows.across.size());
    for (const int x : windows.across) {
      const Pixels part = cropped(scaled, y, x, window());
      Result seen = window_result({part.data(), window()}, wanted);
      const Tensor& logits = seen.logits;  // [C, h', w']
      row.upsamplers.emplace_back(logits.as<float>(), classes,
                                  Size{static_cast<int>(logits.shape[1]), static_cast<int>(logits.shape[2])}, window());
      row.logits.push_back(logits);
      for (size_t k = 0; k < seen.kept.size(); ++k) result.kept[k] += seen.kept[k];
      result.tokens += seen.tokens;
      result.corners.push_back({y, x});
      keep_maps.push_back(std::move(seen.keep_maps));
      confidence_maps.push_back(std::move(seen.confidence_maps));
    }
    return row;
  };

  const std::vector<float> columns = coverage(windows.across, window().width, size.width);
  const LabelsPlace to = place_for(result, original, options.labels);
  LabelWriter writer(classes, size, original, to.data, to.stride, label_bytes());
  std::list<WindowRow> covering;
  size_t next = 0;
  for (int y = 0; y < size.height; ++y) {
    covering.remove_if([&](const WindowRow& row) { return row.y + window().height <= y; });
    for (; next < windows.down.size() && windows.down[next] == y; ++next) covering.push_back(run_row(y));
    float* merged = writer.place(y);  // [C, W]
    std::fill_n(merged, static_cast<size_t>(classes) * width, 0.0f);
    for (WindowRow& row : covering)
      for (size_t k = 0; k < windows.across.size(); ++k) {
        const float* values = row.upsamplers[k].row(y - row.y);  // [C, w]
        for (int c = 0; c < classes; ++c, values += window().width) {
          float* sum = merged + static_cast<size_t>(c) * width + windows.across[k];
          for (int x = 0; x < window().width; ++x) sum[x] += values[x];
        }
      }
    const auto rows = static_cast<float>(covering.size());
    for (int c = 0; c < classes; ++c) {
      float* sum = merged + static_cast<size_t>(c) * width;
      for (size_t x = 0; x < width; ++x) sum[x] /= rows * columns[x];
      if (result.logits.data)
        std::copy(sum, sum + width, result.logits.as<float>() + (static_cast<size_t>(c) * height + y) * width);
    }
    writer.done(y);
  }
  result.keep_maps = stacked(keep_maps);
  result.confidence_maps = stacked(confidence_maps);
  hand_over(result, options);
  return result;
}

}  // namespace dovit::runtime
