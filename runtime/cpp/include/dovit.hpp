// dovit in C++17: dovit.h with handles that free themselves and failures that are exceptions.
//
//     dovit::Session session("engines/");
//     dovit::Result result = session.run({pixels, width, height});
//     dovit::Labels labels = result.labels();
//     std::vector<std::int64_t> kept = result.kept();
//
// Threads may share a session; ownership is as in dovit.h.
#pragma once

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "dovit.h"

namespace dovit {

// An error: one sentence, and the `status` that dovit.h returned.
class Error : public std::runtime_error {
 public:
  Error(dovit_status status, const char* sentence) : std::runtime_error(sentence), status(status) {}
  const dovit_status status;
};

namespace detail {
inline void check(dovit_status status) {
  if (status != DOVIT_OK) throw Error(status, dovit_last_error());
}
}  // namespace detail

struct Image {
  const void* data;
  int width, height;
  std::size_t stride = 0;  // bytes from one row to the next; 0: no gaps
  dovit_format format = DOVIT_RGB;
  dovit_memory memory = DOVIT_HOST;
};

struct LoadOptions {
  std::string backend = "auto", device = {};
  std::string provider = "auto";  // on a CPU: cpu, openvino; auto: the faster of those that are found
  std::string onnxruntime = {}, openvino = {}, tensorrt = {},
              plugins = {};          // paths of libraries; empty: where the system finds them
  std::string precision = {};        // of the plans, empty: of those built last; on a CPU fp32 or bf16, empty: fp32
  std::string cache = {};            // folder for what OpenVINO compiles; empty: none
  bool skip_accuracy_check = false;  // bf16 on a CPU without Python's record of what it costs this bundle
  dovit_graph graph = DOVIT_DEFAULT_GRAPH;
  int threads = 0;
  bool low_memory = false;
  int workers = 1;  // images that run at a time
  dovit_schedule schedule = DOVIT_DEFAULT_SCHEDULE;
  std::vector<double> thresholds = {};  // empty: the bundle's
};

struct RunOptions {
  dovit_mode mode = DOVIT_DEFAULT_MODE;        // the bundle's
  dovit_resize resize = DOVIT_DEFAULT_RESIZE;  // of mode whole
  dovit_schedule schedule = DOVIT_DEFAULT_SCHEDULE;
  std::vector<double> thresholds = {};    // empty: the session's
  std::vector<std::int64_t> counts = {};  // empty: as the thresholds say
  bool return_logits = false;
  void* labels = nullptr;  // memory of the caller's for the labels
  std::size_t labels_stride = 0;
  dovit_memory labels_memory = DOVIT_HOST;
  void* stream = nullptr;
};

using Labels = dovit_labels;
using Info = dovit_info;

class Result {
 public:
  explicit Result(dovit_result* handle) : handle_(handle, &dovit_result_free) {}

  Labels labels() const { return dovit_result_labels(get()); }
  void copy_labels(void* to, std::size_t stride = 0, dovit_memory memory = DOVIT_HOST, void* stream = nullptr) const {
    detail::check(dovit_result_copy_labels(get(), to, stride, memory, stream));
  }
  std::vector<std::int64_t> kept() const {
    std::size_t count = 0;
    const std::int64_t* kept = dovit_result_kept(get(), &count);
    return {kept, kept + count};
  }
  std::array<int, 2> filled() const {  // height and width, of the bundle's size
    std::array<int, 2> size{};
    dovit_result_filled(get(), &size[0], &size[1]);
    return size;
  }
  std::int64_t tokens() const { return dovit_result_tokens(get()); }
  const std::uint8_t* keep_maps(std::array<std::int64_t, 4>& shape) const {
    return dovit_result_keep_maps(get(), shape.data());
  }
  const float* confidence_maps(std::array<std::int64_t, 4>& shape) const {
    return dovit_result_confidence_maps(get(), shape.data());
  }
  std::vector<std::array<int, 2>> windows() const {  // y and x of each one's top left corner
    std::size_t count = 0;
    const int* corners = dovit_result_windows(get(), &count);
    std::vector<std::array<int, 2>> list;
    for (std::size_t k = 0; k < count; ++k) list.push_back({corners[2 * k], corners[2 * k + 1]});
    return list;
  }
  const float* logits(std::array<std::int64_t, 3>& shape) const { return dovit_result_logits(get(), shape.data()); }
  const dovit_result* get() const { return handle_.get(); }

 private:
  std::unique_ptr<dovit_result, void (*)(dovit_result*)> handle_;
};

// An enqueued image. The destructor waits until it is done.
class Job {
 public:
  explicit Job(dovit_job* handle) : handle_(handle, &dovit_job_free) {}

  Result wait() {
    dovit_result* result = nullptr;
    detail::check(dovit_job_wait(handle_.get(), &result));
    return Result(result);
  }
  bool done() const { return dovit_job_done(handle_.get()) != 0; }

 private:
  std::unique_ptr<dovit_job, void (*)(dovit_job*)> handle_;
};

class Session {
 public:
  explicit Session(const std::string& path, const LoadOptions& options = {}) : handle_(nullptr, &dovit_session_free) {
    detail::check(dovit_check_abi(DOVIT_ABI_VERSION));
    dovit_load_options c = DOVIT_LOAD_OPTIONS_INIT;
    const auto given = [](const std::string& text) { return text.empty() ? nullptr : text.c_str(); };
    c.backend = given(options.backend);
    c.device = given(options.device);
    c.onnxruntime = given(options.onnxruntime);
    c.tensorrt = given(options.tensorrt);
    c.plugins = given(options.plugins);
    c.precision = given(options.precision);
    c.provider = given(options.provider);
    c.openvino = given(options.openvino);
    c.cache = given(options.cache);
    c.graph = options.graph;
    c.threads = options.threads;
    c.low_memory = options.low_memory;
    c.skip_accuracy_check = options.skip_accuracy_check;
    c.workers = options.workers;
    c.schedule = options.schedule;
    c.thresholds = options.thresholds.empty() ? nullptr : options.thresholds.data();
    c.threshold_count = options.thresholds.size();
    dovit_session* session = nullptr;
    detail::check(dovit_session_load(path.c_str(), &c, &session));
    handle_.reset(session);
  }

  Result run(const Image& image, const RunOptions& options = {}) const {
    const dovit_image c_image = c_of(image);
    const dovit_run_options c_options = c_of(options);
    dovit_result* result = nullptr;
    detail::check(dovit_session_run(handle_.get(), &c_image, &c_options, &result));
    return Result(result);
  }

  // The image's pixels, and options.labels, must stay until the wait is over.
  Job enqueue(const Image& image, const RunOptions& options = {}) const {
    const dovit_image c_image = c_of(image);
    const dovit_run_options c_options = c_of(options);
    dovit_job* job = nullptr;
    detail::check(dovit_session_enqueue(handle_.get(), &c_image, &c_options, &job));
    return Job(job);
  }

  Info info() const {
    Info info = DOVIT_INFO_INIT;
    detail::check(dovit_session_info(handle_.get(), &info));
    return info;
  }
  std::string class_name(int number) const {  // empty where the bundle has no names
    const char* name = dovit_session_class_name(handle_.get(), number);
    return name ? name : "";
  }
  bool class_colour(int number, std::array<std::uint8_t, 3>& rgb) const {
    return dovit_session_class_colour(handle_.get(), number, rgb.data()) != 0;
  }
  dovit_session* get() const { return handle_.get(); }

 private:
  static dovit_image c_of(const Image& image) {
    return {image.data, image.width, image.height, image.stride, image.format, image.memory};
  }
  static dovit_run_options c_of(const RunOptions& options) {
    dovit_run_options c = DOVIT_RUN_OPTIONS_INIT;
    c.mode = options.mode;
    c.resize = options.resize;
    c.schedule = options.schedule;
    c.thresholds = options.thresholds.empty() ? nullptr : options.thresholds.data();
    c.threshold_count = options.thresholds.size();
    c.counts = options.counts.empty() ? nullptr : options.counts.data();
    c.count_count = options.counts.size();
    c.return_logits = options.return_logits;
    c.labels = options.labels;
    c.labels_stride = options.labels_stride;
    c.labels_memory = options.labels_memory;
    c.stream = options.stream;
    return c;
  }

  std::unique_ptr<dovit_session, void (*)(dovit_session*)> handle_;
};

}  // namespace dovit
