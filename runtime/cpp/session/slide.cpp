// `slide` mode: mmsegmentation's sliding window. Logits of all windows are upsampled, summed and divided by how many
// lie there. An image smaller than the window is first enlarged, keeping its proportions, until the window fits.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "errors.h"
#include "image/resize.h"
#include "image/upsample.h"
#include "session/session.h"

namespace dovit::runtime {

namespace {

constexpr int64_t kMostPixels = int64_t{1} << 26;  // of an enlarged image: 8192×8192

// Where the windows of one dimension begin: every `stride`, the last one clamped to the border.
std::vector<int> starts(int length, int crop, int stride) {
  const int count = std::max(length - crop + stride - 1, 0) / stride + 1;
  std::vector<int> begins;
  for (int k = 0; k < count; ++k) begins.push_back(std::max(std::min(k * stride, length - crop), 0));
  return begins;
}

Size enlarged(Size original, Size window) {
  const double scale = std::max(
      {1.0, static_cast<double>(window.height) / original.height, static_cast<double>(window.width) / original.width});
  if (scale == 1.0) return original;
  const double height = std::max<double>(window.height, std::floor(original.height * scale + 0.5));
  const double width = std::max<double>(window.width, std::floor(original.width * scale + 0.5));
  if (height * width > kMostPixels)
    throw UsageError(text("an image of ", original.height, "×", original.width, " is too narrow for windows of ",
                          window.height, "×", window.width, ": use mode whole"));
  return {static_cast<int>(height), static_cast<int>(width)};
}

// Adds the window's logits, at the window's size, to [C, H, W].
void add_window(const Tensor& logits, Size window, Corner corner, Tensor& total) {
  const auto classes = static_cast<int>(logits.shape[0]);
  const auto height = static_cast<size_t>(total.shape[1]), width = static_cast<size_t>(total.shape[2]);
  Upsampler upsampler(logits.as<float>(), classes,
                      {static_cast<int>(logits.shape[1]), static_cast<int>(logits.shape[2])}, window);
  for (int y = 0; y < window.height; ++y) {
    const float* row = upsampler.row(y);  // [C, w]
    for (int c = 0; c < classes; ++c) {
      float* sum = total.as<float>() + (c * height + corner.y + y) * width + corner.x;
      const float* values = row + static_cast<size_t>(c) * window.width;
      for (int x = 0; x < window.width; ++x) sum[x] += values[x];
    }
  }
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
  const Pixels scaled = resized(image, size);
  Request wanted = request;
  wanted.logits = true;
  Result result;
  result.kept.assign(manifest().decisions.size(), 0);
  result.corners.clear();
  Tensor total = make_tensor(DType::kFloat32, {manifest().classes, size.height, size.width});
  std::memset(total.data, 0, total.bytes());
  std::vector<float> count(static_cast<size_t>(size.height) * size.width, 0.0f);
  std::vector<Tensor> keep_maps, confidence_maps;
  for (const int y : starts(size.height, window().height, static_cast<int>(manifest().slide_stride[0])))
    for (const int x : starts(size.width, window().width, static_cast<int>(manifest().slide_stride[1]))) {
      const Pixels part = cropped(scaled, y, x, window());
      const Result seen = window_result({part.data(), window()}, wanted);
      add_window(seen.logits, window(), {y, x}, total);
      for (int row = y; row < y + window().height; ++row)
        for (int column = x; column < x + window().width; ++column)
          count[static_cast<size_t>(row) * size.width + column] += 1.0f;
      for (size_t k = 0; k < seen.kept.size(); ++k) result.kept[k] += seen.kept[k];
      result.tokens += seen.tokens;
      result.corners.push_back({y, x});
      keep_maps.push_back(seen.keep_maps);
      confidence_maps.push_back(seen.confidence_maps);
    }
  auto* sum = total.as<float>();
  for (int64_t c = 0; c < total.shape[0]; ++c)
    for (const float windows : count) *sum++ /= windows;
  const LabelsPlace to = place_for(result, original, options.labels);
  labels_from_logits(total.as<float>(), static_cast<int>(total.shape[0]), size, original, to.data, to.stride,
                     label_bytes());
  result.keep_maps = stacked(keep_maps);
  result.confidence_maps = stacked(confidence_maps);
  result.logits = std::move(total);
  hand_over(result, options);
  return result;
}

}  // namespace dovit::runtime
