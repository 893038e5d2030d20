// The functions of dovit.h. Each is a line or two on the library's own types. No exception leaves them: what may throw
// runs inside `guarded`.
#include "dovit.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "api/options.h"
#include "errors.h"
#include "session/queue.h"

using namespace dovit::runtime;

struct dovit_session {
  dovit_session(const std::string& path, const LoadOptions& options, int workers)
      : session(path, options), queue(workers) {}
  const Session session;
  Queue queue;  // after the session: it ends first
};

namespace {

// The size and type of a result's labels, and what copies them to device memory; null on a CPU.
struct LabelsKind {
  Size size;
  int label_bytes;
  std::shared_ptr<const DeviceMemory> device;
};

}  // namespace

struct dovit_result {
  Result result;
  LabelsKind kind;
};

struct dovit_job {
  std::shared_ptr<Job> job;
  LabelsKind kind;
};

namespace {

const dovit_load_options kLoadDefaults = DOVIT_LOAD_OPTIONS_INIT;
const dovit_run_options kRunDefaults = DOVIT_RUN_OPTIONS_INIT;

thread_local char t_last_error[2048] = "";  // no std::string: reporting an error must not allocate

void set_last_error(const char* sentence) noexcept {
  size_t size = std::strlen(sentence);
  if (size >= sizeof t_last_error) {
    size = sizeof t_last_error - 1;
    while (size > 0 && (static_cast<unsigned char>(sentence[size]) & 0xc0) == 0x80) --size;  // no half UTF-8 character
  }
  std::memcpy(t_last_error, sentence, size);
  t_last_error[size] = '\0';
}

// Runs a C function's body: an exception becomes a status and this thread's last error.
template <class Body>
dovit_status guarded(const Body& body) noexcept {
  try {
    body();
    return DOVIT_OK;
  } catch (const UsageError& error) {
    set_last_error(error.what());
    return DOVIT_USAGE;
  } catch (const Unsupported& error) {
    set_last_error(error.what());
    return DOVIT_UNSUPPORTED;
  } catch (const DovitError& error) {
    set_last_error(error.what());
  } catch (const std::bad_alloc&) {
    set_last_error("not enough memory: free some, or use a smaller model or image");
  } catch (const std::exception& error) {
    set_last_error(("internal error: " + std::string(error.what())).c_str());
  } catch (...) {
    set_last_error("internal error");
  }
  return DOVIT_ERROR;
}

template <class T>
T* required(T* pointer, const char* name) {
  if (!pointer) throw UsageError(text(name, " is NULL"));
  return pointer;
}

template <class Handle>
void clear(Handle** out, const char* name) {
  *required(out, name) = nullptr;
}

LabelsKind kind_of(const Session& session, const Pixels& image) {
  return {image.size(), session.label_bytes(), session.device_memory()};
}

template <class T>
const T* maps(const Tensor& tensor, int64_t shape[4]) {
  if (shape) std::copy(tensor.shape.begin(), tensor.shape.end(), shape);
  return tensor.as<T>();
}

}  // namespace

const char* dovit_version(void) { return DOVIT_VERSION; }

int dovit_abi_version(void) { return DOVIT_ABI_VERSION; }

dovit_status dovit_check_abi(int header) {
  return guarded([&] {
    if (header != DOVIT_ABI_VERSION)
      throw UsageError(text("this program was compiled with dovit.h of ABI version ", header, ", and libdovit_runtime ",
                            DOVIT_VERSION, " has ", DOVIT_ABI_VERSION, ": compile it with this library's header"));
  });
}

const char* dovit_last_error(void) { return t_last_error; }

dovit_status dovit_session_load(const char* path, const dovit_load_options* options, dovit_session** session) {
  return guarded([&] {
    clear(session, "session");
    required(path, "path");
    const dovit_load_options given = whole_struct(options, kLoadDefaults, "dovit_load_options");
    const LoadOptions checked = load_options(given);
    *session = new dovit_session(path, checked, checked.workers);
  });
}

void dovit_session_free(dovit_session* session) { delete session; }

dovit_status dovit_session_info(const dovit_session* session, dovit_info* info) {
  return guarded([&] {
    const Session& s = required(session, "session")->session;
    const size_t bytes = given_bytes(*required(info, "info"), "dovit_info");
    dovit_info made{};
    const Manifest& manifest = s.manifest();
    made.architecture = manifest.architecture.c_str();
    made.backend = s.backend().c_str();
    made.height = s.window().height;
    made.width = s.window().width;
    made.grid_height = static_cast<int>(manifest.grid_height());
    made.grid_width = static_cast<int>(manifest.grid_width());
    made.classes = static_cast<int>(manifest.classes);
    made.decisions = static_cast<int>(manifest.decisions.size());
    made.label_bytes = s.label_bytes();
    made.thresholds = s.thresholds().data();
    made.mode = s.mode({}) == Mode::kWhole ? DOVIT_WHOLE : DOVIT_SLIDE;
    made.resize = s.keep_ratio({}) ? DOVIT_KEEP_RATIO : DOVIT_STRETCH;
    const auto given = [](const std::string& name) { return name.empty() ? nullptr : name.c_str(); };
    made.provider = given(s.provider());
    made.precision = given(s.precision());
    made.size = bytes;
    std::memcpy(info, &made, bytes);  // an older program's struct ends there
  });
}

const char* dovit_session_class_name(const dovit_session* session, int number) {
  if (!session) return nullptr;
  const auto& names = session->session.manifest().class_names;
  return names && number >= 0 && static_cast<size_t>(number) < names->size() ? (*names)[number].c_str() : nullptr;
}

int dovit_session_class_colour(const dovit_session* session, int number, uint8_t rgb[3]) {
  if (!session || !rgb) return 0;
  const auto& palette = session->session.manifest().palette;
  if (!palette || number < 0 || static_cast<size_t>(number) >= palette->size()) return 0;
  for (int k = 0; k < 3; ++k) rgb[k] = static_cast<uint8_t>((*palette)[number][k]);
  return 1;
}

dovit_status dovit_session_run(dovit_session* session, const dovit_image* image, const dovit_run_options* options,
                               dovit_result** result) {
  return guarded([&] {
    clear(result, "result");
    const Session& s = required(session, "session")->session;
    required(image, "image");
    const RunOptions checked = run_options(whole_struct(options, kRunDefaults, "dovit_run_options"), s, *image);
    const Pixels rgb = pixels(*image, s, checked);
    *result = new dovit_result{s.run(rgb, s.request(checked), checked), kind_of(s, rgb)};
  });
}

dovit_status dovit_session_enqueue(dovit_session* session, const dovit_image* image, const dovit_run_options* options,
                                   dovit_job** job) {
  return guarded([&] {
    clear(job, "job");
    const Session& s = required(session, "session")->session;
    required(image, "image");
    const RunOptions checked = run_options(whole_struct(options, kRunDefaults, "dovit_run_options"), s, *image);
    const auto rgb = std::make_shared<const Pixels>(pixels(*image, s, checked));
    const Request request = s.request(checked);
    auto made = std::make_unique<dovit_job>();
    made->job = std::make_shared<Job>([&s, rgb, request, checked] { return s.run(*rgb, request, checked); });
    made->kind = kind_of(s, *rgb);
    session->queue.push(made->job);
    *job = made.release();
  });
}

dovit_status dovit_job_wait(dovit_job* job, dovit_result** result) {
  return guarded([&] {
    clear(result, "result");
    required(job, "job");
    *result = new dovit_result{job->job->wait(), job->kind};
  });
}

int dovit_job_done(const dovit_job* job) { return job && job->job->done(); }

void dovit_job_free(dovit_job* job) {
  if (job) job->job->finish();
  delete job;
}

dovit_labels dovit_result_labels(const dovit_result* result) {
  if (!result) return dovit_labels{nullptr, 0, 0, 0};
  const auto& [size, label_bytes, device] = result->kind;
  return dovit_labels{result->result.labels.data, size.width, size.height, label_bytes};
}

dovit_status dovit_result_copy_labels(const dovit_result* result, void* to, size_t stride, int memory, void* stream) {
  return guarded([&] {
    const Tensor& labels = required(result, "result")->result.labels;
    required(to, "to");
    const auto& [size, label_bytes, device] = result->kind;
    const bool there = on_device(memory, "labels", device.get());
    check_stream(stream, device.get());
    if (!labels.data) throw UsageError("the labels went to the memory given with the image: there is nothing to copy");
    const size_t row = static_cast<size_t>(size.width) * label_bytes;
    if (stride && stride < row) throw UsageError(text("stride ", stride, " is less than a row of ", row, " bytes"));
    if (!stride) stride = row;
    if (there) return device->write(to, stride, labels.data, row, static_cast<size_t>(size.height), stream);
    for (int y = 0; y < size.height; ++y)
      std::memcpy(static_cast<char*>(to) + y * stride, labels.as<char>() + y * row, row);
  });
}

const int64_t* dovit_result_kept(const dovit_result* result, size_t* count) {
  if (count) *count = result ? result->result.kept.size() : 0;
  return result ? result->result.kept.data() : nullptr;
}

int64_t dovit_result_tokens(const dovit_result* result) { return result ? result->result.tokens : 0; }

const uint8_t* dovit_result_keep_maps(const dovit_result* result, int64_t shape[4]) {
  return result ? maps<uint8_t>(result->result.keep_maps, shape) : nullptr;
}

const float* dovit_result_confidence_maps(const dovit_result* result, int64_t shape[4]) {
  return result ? maps<float>(result->result.confidence_maps, shape) : nullptr;
}

void dovit_result_filled(const dovit_result* result, int* height, int* width) {
  if (height) *height = result ? result->result.filled.height : 0;
  if (width) *width = result ? result->result.filled.width : 0;
}

const int* dovit_result_windows(const dovit_result* result, size_t* count) {
  static_assert(sizeof(Corner) == 2 * sizeof(int), "corners are handed out as pairs of ints");
  if (count) *count = result ? result->result.corners.size() : 0;
  return result ? &result->result.corners[0].y : nullptr;
}

const float* dovit_result_logits(const dovit_result* result, int64_t shape[3]) {
  if (!result || !result->result.logits.data) return nullptr;
  return maps<float>(result->result.logits, shape);
}

void dovit_result_free(dovit_result* result) { delete result; }
