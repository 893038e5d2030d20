// A session's threads, beside a program that uses ONNX Runtime itself: threads BUNDLE LIBONNXRUNTIME.so. A process has
// one environment of ONNX Runtime, so each case runs in a process of its own.
#include <dlfcn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "bundle/open.h"
#include "expect.h"
#include "onnxruntime/api.h"
#include "session/session.h"

using namespace dovit::runtime;

namespace {

void ignore_message(void*, ort::LoggingLevel, const char*, const char*, const char*, const char*) {}

// The program's own use of ONNX Runtime, with its default options.
struct OwnSession {
  OwnSession(const char* library, const std::filesystem::path& model) {
    const auto get_base =
        reinterpret_cast<const ort::ApiBase* (*)()>(dlsym(dlopen(library, RTLD_NOW | RTLD_LOCAL), "OrtGetApiBase"));
    api = ort::Api(get_base()->get_api(ort::kApiVersion));
    EXPECT(!api.create_env_with_custom_logger(&ignore_message, nullptr, ort::kFatal, "program", &env));
    ort::SessionOptions* options = nullptr;
    EXPECT(!api.create_session_options(&options));
    EXPECT(!api.create_session(env, model.c_str(), options, &session));
    api.release_session_options(options);
  }
  ~OwnSession() {
    api.release_session(session);
    api.release_env(env);
  }
  ort::Api api{nullptr};
  ort::Env* env = nullptr;
  ort::Session* session = nullptr;
};

std::ptrdiff_t running_threads() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
}

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void run(const Session& session) {
  const Size size = session.window();
  const Pixels pixels(std::vector<uint8_t>(static_cast<size_t>(size.height) * size.width * 3, 99), size);
  EXPECT(session.run(pixels, session.request({}), {}).labels.data);
}

LoadOptions with(const char* library, int threads) {
  LoadOptions options;
  options.onnxruntime = library;
  options.threads = threads;
  options.provider = "cpu";
  return options;
}

void test_beside_own_sessions(const char* bundle, const char* library) {
  const std::filesystem::path model =
      std::filesystem::path(bundle) / *Session(bundle, with(library, 1)).manifest().steps[0].onnx;
  const OwnSession before(library, model);
  const Session session(bundle, with(library, 2));
  run(session);
  const OwnSession beside(library, model);
  run(session);
}

void test_thread_counts(const char* bundle, const char* library) {
  const Session one(bundle, with(library, 1));
  run(one);
  const auto with_one = running_threads();  // ONNX Runtime has some of its own
  const Session three(bundle, with(library, 3));
  run(three);
  EXPECT(running_threads() == with_one + 2 * static_cast<std::ptrdiff_t>(three.manifest().steps.size()));
}

// Threads that spin after an image would use all of the time that this waits.
void test_idle_sessions(const char* bundle, const char* library) {
  const Session session(bundle, with(library, 4));
  run(session);
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(15));
  EXPECT(cpu_seconds() - before < 0.005);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  for (const auto test : {test_beside_own_sessions, test_thread_counts, test_idle_sessions}) {
    const pid_t process = fork();
    if (!process) {
      test(arguments[1], arguments[2]);
      _exit(0);
    }
    int status = -1;
    EXPECT(waitpid(process, &status, 0) == process && status == 0);
  }
  return 0;
}
