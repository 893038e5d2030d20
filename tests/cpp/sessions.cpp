// The public interface on a real bundle: sessions BUNDLE LIBONNXRUNTIME.so. The labels themselves are compared with
// Python's in test_embedding.py; here concurrent calls and invalid arguments are tested.
#include <atomic>
#include <cstddef>
#include <cstring>
#include <dovit.hpp>
#include <thread>

#include "expect.h"

namespace {

struct Picture {
  int width, height;
  std::vector<std::uint8_t> rgb;

  Picture(int width, int height, int seed) : width(width), height(height), rgb(std::size_t(width) * height * 3) {
    unsigned state = 12345u + static_cast<unsigned>(seed);
    for (std::size_t k = 0; k < rgb.size(); ++k) {
      if (k % 24 == 0) state = state * 1664525u + 1013904223u;  // patches differ, and so do pixels
      rgb[k] = static_cast<std::uint8_t>((state >> 24) / 2 + k % 97);
    }
  }
  dovit::Image image() const { return {rgb.data(), width, height}; }
};

using Bytes = std::vector<std::uint8_t>;

Bytes labels_of(const dovit::Result& result) {
  const dovit::Labels labels = result.labels();
  const auto* data = static_cast<const std::uint8_t*>(labels.data);
  return {data, data + std::size_t(labels.width) * labels.height * labels.label_bytes};
}

template <class Call>
std::string failure(dovit_status status, const Call& call) {
  try {
    call();
  } catch (const dovit::Error& error) {
    EXPECT(error.status == status);
    EXPECT(!std::strchr(error.what(), '\n'));
    return error.what();
  }
  EXPECT(!"a failure");
  return "";
}

void has(const std::string& sentence, const char* part) {
  if (sentence.find(part) == std::string::npos) fprintf(stderr, "%s\n", sentence.c_str());
  EXPECT(sentence.find(part) != std::string::npos);
}

void test_formats_and_strides(const dovit::Session& session, const Picture& picture) {
  const Bytes expected = labels_of(session.run(picture.image()));
  const std::size_t pixels = picture.rgb.size() / 3;
  struct Case {
    dovit_format format;
    std::size_t channels;
    int red, green, blue;
  };
  for (const Case& c :
       {Case{DOVIT_RGB, 3, 0, 1, 2}, {DOVIT_BGR, 3, 2, 1, 0}, {DOVIT_RGBA, 4, 0, 1, 2}, {DOVIT_BGRA, 4, 2, 1, 0}}) {
    const std::size_t stride = picture.width * c.channels + 13;
    Bytes data(stride * picture.height, 99);
    for (std::size_t k = 0; k < pixels; ++k) {
      std::uint8_t* to = data.data() + k / picture.width * stride + k % picture.width * c.channels;
      to[c.red] = picture.rgb[3 * k];
      to[c.green] = picture.rgb[3 * k + 1];
      to[c.blue] = picture.rgb[3 * k + 2];
    }
    EXPECT(labels_of(session.run({data.data(), picture.width, picture.height, stride, c.format})) == expected);
  }
  Bytes grey(pixels), repeated(3 * pixels);
  for (std::size_t k = 0; k < pixels; ++k)
    grey[k] = repeated[3 * k] = repeated[3 * k + 1] = repeated[3 * k + 2] = picture.rgb[3 * k];
  EXPECT(labels_of(session.run({grey.data(), picture.width, picture.height, 0, DOVIT_GREY})) ==
         labels_of(session.run({repeated.data(), picture.width, picture.height})));
}

void test_results(const dovit::Session& session, const Picture& picture) {
  const dovit::Info info = session.info();
  EXPECT(info.height > 0 && info.classes > 1 && info.decisions > 0 && !std::strcmp(info.backend, "onnxruntime"));
  EXPECT(info.mode == DOVIT_WHOLE && info.resize == DOVIT_STRETCH);
  dovit::RunOptions options;
  options.thresholds = {0.5};
  options.return_logits = true;
  const dovit::Result result = session.run(picture.image(), options);
  std::array<std::int64_t, 4> shape{}, same{};
  const std::uint8_t* keep = result.keep_maps(shape);
  const float* confidence = result.confidence_maps(same);
  EXPECT(shape == same && shape[0] == 1 && shape[1] == info.decisions && shape[2] == info.grid_height);
  const std::int64_t tokens = shape[2] * shape[3];
  EXPECT(tokens == result.tokens());
  for (int d = 0; d < info.decisions; ++d) {
    std::int64_t count = 0;
    for (std::int64_t k = d * tokens; k < (d + 1) * tokens; ++k) {
      count += keep[k];
      const bool seen = confidence[k] == confidence[k];
      EXPECT(seen == (d == 0 || keep[k - tokens]));         // NaN where already stopped
      EXPECT(!seen || keep[k] == (confidence[k] <= 0.5f));  // kept unless its confidence exceeds ξ
    }
    EXPECT(count == result.kept()[d]);
  }
  std::array<std::int64_t, 3> sizes{};
  EXPECT(result.logits(sizes) && sizes[0] == info.classes);
  EXPECT(!session.run(picture.image()).logits(sizes));

  Bytes own(std::size_t(picture.width + 5) * picture.height, 77);
  options.labels = own.data();
  options.labels_stride = picture.width + 5;
  EXPECT(session.run(picture.image(), options).labels().data == nullptr);
  const Bytes expected = labels_of(result);
  for (int y = 0; y < picture.height; ++y) {
    const std::uint8_t* row = own.data() + std::size_t(y) * (picture.width + 5);
    EXPECT(!std::memcmp(row, expected.data() + std::size_t(y) * picture.width, picture.width) &&
           row[picture.width] == 77);
  }
  options.thresholds = {0.0};
  options.labels = nullptr;
  for (const std::int64_t kept : session.run(picture.image(), options).kept()) EXPECT(kept == 0);
}

void test_wrong_arguments(const dovit::Session& session, const Picture& picture, const char* bundle,
                          const char* library) {
  const auto run = [&](auto change) {
    return [&session, &picture, change] {
      dovit::Image image = picture.image();
      dovit::RunOptions options;
      change(image, options);
      session.run(image, options);
    };
  };
  using I = dovit::Image&;
  using O = dovit::RunOptions&;
  has(failure(DOVIT_USAGE, run([](I, O o) { o.thresholds = {1.5}; })), "threshold 1.5 lies outside [0, 1]");
  has(failure(DOVIT_USAGE, run([](I, O o) { o.thresholds.assign(9, 0.5); })), "9 thresholds for");
  has(failure(DOVIT_USAGE, run([](I, O o) { o.counts = {1}; })), "falling numbers of tokens");
  has(failure(DOVIT_USAGE, run([](I i, O) { i.data = nullptr; })), "NULL");
  has(failure(DOVIT_USAGE, run([](I i, O) { i.width = 0; })), "cannot be");
  has(failure(DOVIT_USAGE, run([](I i, O) { i.stride = 5; })), "stride 5 is less than a row");
  has(failure(DOVIT_UNSUPPORTED, run([](I i, O) { i.memory = DOVIT_DEVICE; })), "device memory");
  has(failure(DOVIT_UNSUPPORTED, run([&](I, O o) { o.stream = &o; })), "CUDA stream");
  Bytes own(picture.rgb.size());
  has(failure(DOVIT_UNSUPPORTED, run([&](I, O o) { o.labels = own.data(), o.labels_memory = DOVIT_DEVICE; })),
      "device memory");
  has(failure(DOVIT_USAGE, run([&](I, O o) { o.labels = own.data(), o.labels_stride = 3; })), "labels_stride 3");
  has(failure(DOVIT_USAGE,
              [&] {
                dovit::RunOptions options;
                options.thresholds = {-1.0};
                session.enqueue(picture.image(), options);
              }),
      "threshold -1.0 lies outside");

  const auto load = [&](auto change) {
    return [bundle, library, change] {
      dovit::LoadOptions options;
      options.onnxruntime = library;
      options.provider = "cpu";
      change(options);
      dovit::Session(bundle, options);
    };
  };
  using L = dovit::LoadOptions&;
#ifdef DOVIT_GPU
  has(failure(DOVIT_ERROR, load([](L l) { l.backend = "tensorrt"; })), "no tensorrt plans in this bundle");
  has(failure(DOVIT_ERROR, load([](L l) { l.backend = "tensorrt-rtx", l.precision = "bf16"; })),
      "no tensorrt-rtx bf16 plans in this bundle");
  has(failure(DOVIT_USAGE, load([](L l) { l.backend = "tensorrt", l.device = "cpu"; })), "runs on a GPU");
  has(failure(DOVIT_USAGE, load([](L l) { l.backend = "tensorrt", l.device = "cuda:"; })), "unknown device 'cuda:'");
#else
  has(failure(DOVIT_UNSUPPORTED, load([](L l) { l.backend = "tensorrt"; })), "not in this build");
  has(failure(DOVIT_UNSUPPORTED, load([](L l) { l.backend = "tensorrt-rtx"; })), "not in this build");
#endif
  has(failure(DOVIT_USAGE, load([](L l) { l.graph = static_cast<dovit_graph>(3); })), "unknown graph mode 3");
  has(failure(DOVIT_USAGE, load([](L l) { l.backend = "openvino"; })),
      "unknown backend 'openvino': choose one of auto, ");
  has(failure(DOVIT_UNSUPPORTED, load([](L l) { l.device = "cuda:0"; })), "device cuda:0 needs");
  has(failure(DOVIT_USAGE, load([](L l) { l.device = "moon"; })), "unknown device 'moon'");
  has(failure(DOVIT_USAGE, load([](L l) { l.thresholds = {0.5, 2}; })), "2 thresholds for");
  has(failure(DOVIT_USAGE, load([](L l) { l.threads = -1; })), "-1 threads");
  has(failure(DOVIT_ERROR, load([](L l) { l.onnxruntime = "libno.so"; })), "ONNX Runtime's library cannot be opened");
  has(failure(DOVIT_ERROR, load([](L l) { l.onnxruntime = "libm.so.6"; })), "it has no OrtGetApiBase");
}

// Numbers that no enum has, as a C program may pass them.
void test_wrong_numbers(const dovit::Session& session, const Picture& picture) {
  const auto refused = [&](auto change, const char* part) {
    dovit_image image = {picture.rgb.data(), picture.width, picture.height, 0, DOVIT_RGB, DOVIT_HOST};
    dovit_run_options options = DOVIT_RUN_OPTIONS_INIT;
    change(image, options);
    dovit_result* result = nullptr;
    EXPECT(dovit_session_run(session.get(), &image, &options, &result) == DOVIT_USAGE && !result);
    has(dovit_last_error(), part);
  };
  using I = dovit_image&;
  using O = dovit_run_options&;
  refused([](I, O o) { o.mode = 7; }, "unknown mode 7: choose whole or slide");
  refused([](I, O o) { o.resize = 3; }, "unknown resize 3: choose stretch or keep ratio");
  refused([](I, O o) { o.schedule = -1; }, "unknown schedule -1: choose exact, rounded or bucketed");
  refused([](I i, O) { i.format = 9; }, "unknown format 9");
  refused([](I i, O) { i.memory = 3; }, "unknown memory 3");
  refused([](I, O o) { o.threshold_count = 3; }, "thresholds is NULL, and its count 3");
}

// A struct of another dovit.h: `size` bytes long. What lies behind those is no field of the caller's, and no pointer.
template <class Struct>
Struct of_size(Struct given, std::size_t size) {
  given.size = size;
  if (size < sizeof given) std::memset(reinterpret_cast<char*>(&given) + size, 0x5a, sizeof given - size);
  return given;
}

void test_structs_of_an_older_header(const dovit::Session& session, const Picture& picture, const char* bundle,
                                     const char* library) {
  dovit_load_options load = DOVIT_LOAD_OPTIONS_INIT;
  load.backend = "onnxruntime";
  load.onnxruntime = library;
  for (const std::size_t size : {offsetof(dovit_load_options, tensorrt), offsetof(dovit_load_options, openvino)}) {
    const dovit_load_options older = of_size(load, size);
    dovit_session* loaded = nullptr;
    EXPECT(dovit_session_load(bundle, &older, &loaded) == DOVIT_OK);
    dovit_info info = DOVIT_INFO_INIT;
    EXPECT(dovit_session_info(loaded, &info) == DOVIT_OK);
    EXPECT(info.size == sizeof info && info.classes == session.info().classes);
    EXPECT(!std::memcmp(info.thresholds, session.info().thresholds, sizeof(double) * std::size_t(info.decisions)));
    dovit_session_free(loaded);
  }

  const dovit_image image = {picture.rgb.data(), picture.width, picture.height, 0, DOVIT_RGB, DOVIT_HOST};
  const std::vector<double> none(std::size_t(session.info().decisions), 0.0);
  dovit_run_options run = DOVIT_RUN_OPTIONS_INIT;
  run.thresholds = none.data();
  run.threshold_count = none.size();
  const dovit_run_options older = of_size(run, offsetof(dovit_run_options, counts));
  dovit_result* handle = nullptr;
  EXPECT(dovit_session_run(session.get(), &image, &older, &handle) == DOVIT_OK);
  const dovit::Result result(handle);
  for (const std::int64_t kept : result.kept()) EXPECT(kept == 0);
  EXPECT(labels_of(result).size() == picture.rgb.size() / 3 && !dovit_result_logits(handle, nullptr));

  constexpr std::size_t kSize = offsetof(dovit_info, grid_height);
  const dovit_info before = of_size(dovit_info DOVIT_INFO_INIT, kSize);
  dovit_info info = before;
  EXPECT(dovit_session_info(session.get(), &info) == DOVIT_OK);
  EXPECT(info.size == kSize && info.height == session.info().height && info.width == session.info().width);
  EXPECT(info.architecture == session.info().architecture && info.backend == session.info().backend);
  const auto behind = [](const dovit_info& one) { return reinterpret_cast<const char*>(&one) + kSize; };
  EXPECT(!std::memcmp(behind(info), behind(before), sizeof info - kSize));
}

// A larger struct may have fields that this library does not know; a size between those of two headers is a mistake.
void test_structs_that_are_refused(const dovit::Session& session, const Picture& picture, const char* bundle) {
  const auto refused = [&](std::size_t change, const char* part) {
    const auto load = of_size(dovit_load_options DOVIT_LOAD_OPTIONS_INIT, sizeof(dovit_load_options) + change);
    dovit_session* loaded = nullptr;
    EXPECT(dovit_session_load(bundle, &load, &loaded) == DOVIT_USAGE && !loaded);
    has(dovit_last_error(), part);

    const auto run = of_size(dovit_run_options DOVIT_RUN_OPTIONS_INIT, sizeof(dovit_run_options) + change);
    const dovit_image image = {picture.rgb.data(), picture.width, picture.height, 0, DOVIT_RGB, DOVIT_HOST};
    dovit_result* result = nullptr;
    EXPECT(dovit_session_run(session.get(), &image, &run, &result) == DOVIT_USAGE && !result);
    has(dovit_last_error(), part);

    const auto before = of_size(dovit_info DOVIT_INFO_INIT, sizeof(dovit_info) + change);
    dovit_info info = before;
    EXPECT(dovit_session_info(session.get(), &info) == DOVIT_USAGE && !std::memcmp(&info, &before, sizeof info));
    has(dovit_last_error(), part);
  };
  refused(8, "use a newer library");
  refused(std::size_t(1) << 40, "use a newer library");
  refused(std::size_t(0) - 4, "start it with its _INIT");  // half a field
  for (const std::size_t size : {0, 3, 8}) {
    const auto load = of_size(dovit_load_options DOVIT_LOAD_OPTIONS_INIT, size);
    dovit_session* loaded = nullptr;
    EXPECT(dovit_session_load(bundle, &load, &loaded) == DOVIT_USAGE && !loaded);
    has(dovit_last_error(), "start it with its _INIT");
  }
}

void test_enqueue(const char* bundle, const dovit::LoadOptions& given) {
  dovit::LoadOptions options = given;
  options.workers = 2;
  auto session = std::make_unique<dovit::Session>(bundle, options);
  std::vector<Picture> pictures;
  for (int k = 0; k < 5; ++k) pictures.emplace_back(100 + 30 * k, 90, k);
  std::vector<Bytes> expected;
  for (const Picture& picture : pictures) expected.push_back(labels_of(session->run(picture.image())));
  std::vector<dovit::Job> jobs;
  for (const Picture& picture : pictures) jobs.push_back(session->enqueue(picture.image()));
  jobs.pop_back();  // a job may be destroyed at any time
  session.reset();  // so is freeing the session: what was enqueued is done first
  for (std::size_t k = 0; k < jobs.size(); ++k) {
    EXPECT(jobs[k].done());
    EXPECT(labels_of(jobs[k].wait()) == expected[k]);
  }
  has(failure(DOVIT_USAGE, [&] { jobs[0].wait(); }), "taken before");
}

void test_eight_threads(const dovit::Session& session) {
  std::vector<Picture> pictures;
  std::vector<Bytes> expected;
  for (int k = 0; k < 8; ++k) {
    pictures.emplace_back(384 - 20 * k, 192 + 10 * k, k);
    expected.push_back(labels_of(session.run(pictures[k].image())));
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int k = 0; k < 8; ++k)
    threads.emplace_back([&, k] {
      for (int turn = 0; turn < 4; ++turn) {
        dovit::RunOptions options;
        if (turn == 2) {  // each thread has its own sentence
          options.thresholds = {2.0 + k};
          const std::string own = "threshold " + std::to_string(2 + k) + ".0 lies";
          has(failure(DOVIT_USAGE, [&] { session.run(pictures[k].image(), options); }), own.c_str());
          continue;
        }
        dovit::Job job = session.enqueue(pictures[k].image());
        wrong += labels_of(session.run(pictures[k].image())) != expected[k];
        wrong += labels_of(job.wait()) != expected[k];
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT(wrong == 0);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  dovit::LoadOptions options;
  options.onnxruntime = arguments[2];
  options.provider = "cpu";
  const dovit::Session session(arguments[1], options);
  const Picture picture(250, 170, 0);
  test_formats_and_strides(session, picture);
  test_results(session, picture);
  test_wrong_arguments(session, picture, arguments[1], arguments[2]);
  test_wrong_numbers(session, picture);
  test_structs_of_an_older_header(session, picture, arguments[1], arguments[2]);
  test_structs_that_are_refused(session, picture, arguments[1]);
  test_enqueue(arguments[1], options);
  test_eight_threads(session);
  options.low_memory = true;
  options.thresholds = {1.0};
  const dovit::Session dense(arguments[1], options);
  const dovit::Result all = dense.run(picture.image());
  for (const std::int64_t kept : all.kept()) EXPECT(kept == all.tokens());
  return 0;
}
