// Slide mode over an executor that returns made-up logits: merging row by row against the whole image at once, its
// limits, and its memory for many classes.
#include <sys/resource.h>

#include <algorithm>
#include <cstring>

#include "errors.h"
#include "expect.h"
#include "image/resize.h"
#include "image/upsample.h"
#include "session/session.h"

using namespace dovit::runtime;

namespace {

constexpr Size kWindow{16, 24};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // freed memory is not given back at once
#else
constexpr bool kSanitized = false;
#endif

Manifest manifest_of(int64_t classes, Size logits) {
  Manifest m;
  m.image_size = {kWindow.height, kWindow.width};
  m.patch = 8;
  m.classes = classes;
  m.slide_stride = {10, 16};
  Step step;
  step.outputs = {{"labels", {classes > 256 ? "int16" : "uint8"}, {"batch", kWindow.height, kWindow.width}},
                  {"logits", {"float32"}, {"batch", classes, logits.height, logits.width}}};
  m.steps = {step};
  return m;
}

// Logits that depend on the window's pixels.
Tensor invented(const uint8_t* pixels, int64_t classes, Size size) {
  Tensor logits = make_tensor(DType::kFloat32, {1, classes, size.height, size.width});
  unsigned state = 1;
  for (int k = 0; k < kWindow.height * kWindow.width * 3; ++k) state = state * 31u + pixels[k];
  for (int64_t k = 0; k < logits.elements(); ++k) {
    state = state * 1664525u + 1013904223u;
    logits.as<float>()[k] = static_cast<float>(state >> 8) / static_cast<float>(1 << 20) - 8.0f;
  }
  return logits;
}

struct Inventor : Executor {
  Inventor(int64_t classes, Size size) : classes(classes), size(size) {}
  Pass run(const Frame& frame, const Request&) const override {
    Pass pass;
    pass.labels = make_tensor(DType::kUint8, {1, kWindow.height, kWindow.width});
    pass.logits = invented(frame.pixels, classes, size);
    return pass;
  }
  const int64_t classes;
  const Size size;
};

Session session_of(int64_t classes, Size logits) {
  return Session({".", manifest_of(classes, logits)}, std::make_unique<Inventor>(classes, logits), {});
}

Pixels picture(Size size) {
  std::vector<uint8_t> pixels(static_cast<size_t>(size.height) * size.width * 3);
  unsigned state = 7;
  for (uint8_t& value : pixels) value = static_cast<uint8_t>((state = state * 1664525u + 1013904223u) >> 24);
  return Pixels(std::move(pixels), size);
}

RunOptions slide(bool logits) {
  RunOptions options;
  options.mode = Mode::kSlide;
  options.return_logits = logits;
  return options;
}

std::vector<int> begins(int length, int crop, int stride) {
  std::vector<int> all{0};
  while (all.back() + crop < length) all.push_back(std::min(all.back() + stride, length - crop));
  return all;
}

// The merged logits of the whole image, [C, H, W], and how many windows lie at each pixel.
std::vector<float> merged(const Pixels& image, int classes, Size logits) {
  const Size size = image.size();
  std::vector<float> total(static_cast<size_t>(classes) * size.height * size.width, 0.0f);
  std::vector<float> count(static_cast<size_t>(size.height) * size.width, 0.0f);
  for (const int y : begins(size.height, kWindow.height, 10))
    for (const int x : begins(size.width, kWindow.width, 16)) {
      const Tensor seen = invented(cropped(image, y, x, kWindow).data(), classes, logits);
      Upsampler upsampler(seen.as<float>(), classes, logits, kWindow);
      for (int row = 0; row < kWindow.height; ++row) {
        const float* values = upsampler.row(row);
        for (int c = 0; c < classes; ++c)
          for (int column = 0; column < kWindow.width; ++column)
            total[(static_cast<size_t>(c) * size.height + y + row) * size.width + x + column] +=
                values[c * kWindow.width + column];
        for (int column = 0; column < kWindow.width; ++column)
          count[static_cast<size_t>(y + row) * size.width + x + column] += 1;
      }
    }
  for (size_t k = 0; k < total.size(); ++k) total[k] /= count[k % count.size()];
  return total;
}

// A size, and that which it is enlarged to.
struct Case {
  Size size, larger;
};

void test_merged_rows_are_those_of_the_whole() {
  for (const Size logits : {Size{4, 6}, Size{2, 3}, kWindow, Size{1, 1}})
    for (const int classes : {2, 7, 300})
      for (const auto& [size, larger] : {Case{{16, 24}, {16, 24}},
                                         {{40, 61}, {40, 61}},
                                         {{16, 200}, {16, 200}},
                                         {{33, 25}, {33, 25}},
                                         {{9, 50}, {16, 89}},
                                         {{5, 3}, {40, 24}},
                                         {{1, 1}, {24, 24}}}) {
        const Session session = session_of(classes, logits);
        const Pixels image = picture(size), scaled = resized(image, larger);
        const std::vector<float> expected = merged(scaled, classes, logits);
        const RunOptions options = slide(true);
        const Result result = session.run(image, session.request(options), options);
        EXPECT(result.logits.shape == (Shape{classes, larger.height, larger.width}));
        EXPECT(!std::memcmp(result.logits.data, expected.data(), result.logits.bytes()));
        const int bytes = classes > 256 ? 2 : 1;
        std::vector<uint8_t> labels(static_cast<size_t>(size.height) * size.width * bytes);
        labels_from_logits(expected.data(), classes, larger, size, labels.data(), size_t(size.width) * bytes, bytes);
        EXPECT(result.labels.bytes() == labels.size());
        EXPECT(!std::memcmp(result.labels.data, labels.data(), labels.size()));
        const Result without = session.run(image, session.request(options), slide(false));
        EXPECT(!without.logits.data && !std::memcmp(without.labels.data, labels.data(), labels.size()));
      }
}

// With its aspect ratio: scaled into the window, padded with the mean; logits at the window's size, cut, and resized.
void test_whole_keeps_the_aspect_ratio() {
  struct Fit {
    Size size, inside;
  };
  for (const Fit& fit : {Fit{{32, 48}, {16, 24}},
                         {{30, 20}, {16, 11}},
                         {{5, 24}, {5, 24}},
                         {{7, 31}, {5, 24}},
                         {{3, 2}, {16, 11}},
                         {{1, 400}, {1, 24}},
                         {{400, 1}, {16, 1}}}) {
    EXPECT(fitted_size(fit.size, kWindow) == fit.inside);
    Manifest manifest = manifest_of(7, {4, 6});
    manifest.keep_ratio = true;
    manifest.mean = {123.675, 116.5, 103.53};
    const Session session({".", manifest}, std::make_unique<Inventor>(7, Size{4, 6}), {});
    const Pixels image = picture(fit.size), small = resized(image, fit.inside);
    std::vector<uint8_t> input;
    for (int y = 0; y < kWindow.height; ++y)
      for (int x = 0; x < kWindow.width; ++x)
        for (int c = 0; c < 3; ++c)
          input.push_back(y < fit.inside.height && x < fit.inside.width
                              ? small.data()[(y * fit.inside.width + x) * 3 + c]
                              : std::array<uint8_t, 3>{124, 116, 104}[static_cast<size_t>(c)]);
    const Tensor logits = invented(input.data(), 7, {4, 6});
    Upsampler upsampler(logits.as<float>(), 7, {4, 6}, kWindow);
    std::vector<float> cut(static_cast<size_t>(7) * fit.inside.height * fit.inside.width);
    for (int y = 0; y < fit.inside.height; ++y) {
      const float* row = upsampler.row(y);
      for (int c = 0; c < 7; ++c)
        for (int x = 0; x < fit.inside.width; ++x)
          cut[(static_cast<size_t>(c) * fit.inside.height + y) * fit.inside.width + x] = row[c * kWindow.width + x];
    }
    std::vector<uint8_t> labels(static_cast<size_t>(fit.size.height) * fit.size.width);
    labels_from_logits(cut.data(), 7, fit.inside, fit.size, labels.data(), fit.size.width, 1);
    const Result result = session.run(image, session.request({}), {});
    EXPECT(result.filled == fit.inside && result.labels.bytes() == labels.size());
    EXPECT(!std::memcmp(result.labels.data, labels.data(), labels.size()));
    RunOptions stretched;
    stretched.keep_ratio = false;
    EXPECT(session.run(image, session.request({}), stretched).filled == kWindow);
  }
}

void refused(const Session& session, Size size, bool logits, const char* sentence) {
  const RunOptions options = slide(logits);
  try {
    session.run(picture(size), session.request(options), options);
    EXPECT(!"refused");
  } catch (const UsageError& error) {
    if (std::strcmp(error.what(), sentence)) std::fprintf(stderr, "%s\n", error.what());
    EXPECT(!std::strcmp(error.what(), sentence));
  }
}

void test_limits_say_their_number() {
  const Session small = session_of(2, {4, 6}), many = session_of(30000, kWindow);
  refused(
      small, {1, 65537}, false,
      "an image of 1×65537 is too narrow for windows of 16×24: enlarged until they fit, it has 16777472 pixels, more "
      "than 16777216; use mode whole");
  refused(
      small, {16, 16 * 4096 + 9}, false,
      "an image of 16×65545 needs 4097 windows of 16×24, more than 4096; use mode whole, or cut the image into parts");
  // 3 rows of windows by 33 columns: 99 × 30000 × 16 × 24 logits
  refused(
      many, {16 + 10 + 4, 24 + 32 * 16}, false,
      "an image of 30×536 needs the logits of 99 windows at a time, 30000 classes of 384 each, more than 1073741824 "
      "values; use mode whole, or cut the image into parts");
  refused(session_of(30000, {1, 1}), {200, 200}, true,
          "the logits of an image of 200×200 with 30000 classes are 1200000000 values, more than 1073741824; leave "
          "return_logits off, or cut the image into parts");
}

// 300 classes at 300×1500: merged at once they are 540 MB.
void test_memory_is_that_of_a_row_of_windows() {
  const Session session = session_of(300, {4, 6});
  const RunOptions options = slide(false);
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  session.run(picture({300, 1500}), session.request(options), options);
  getrusage(RUSAGE_SELF, &after);
  EXPECT(after.ru_maxrss - before.ru_maxrss < 50 * 1024);  // KiB
}

}  // namespace

int main() {
  test_merged_rows_are_those_of_the_whole();
  test_whole_keeps_the_aspect_ratio();
  test_limits_say_their_number();
  if (!kSanitized) test_memory_is_that_of_a_row_of_windows();  // sanitizers take memory of their own
  return 0;
}
