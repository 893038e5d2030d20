#include "onnxruntime/library.h"

#include <dlfcn.h>

#include <vector>

#include "errors.h"

namespace dovit::runtime {

namespace {

// Discards log messages: errors are returned as a status.
void ignore_message(void*, ort::LoggingLevel, const char*, const char*, const char*, const char*) {}

// Never closed: threads and thread-local memory of the library outlive the last environment.
void* open_onnxruntime(const std::string& path) {
  std::vector<std::string> names{path};
  if (path.empty()) names = {"libonnxruntime.so.1", "libonnxruntime.so"};
  std::string why;
  for (const std::string& name : names) {
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    const char* reason = dlerror();
    if (why.empty()) why = reason ? reason : name;
  }
  throw DovitError(
      text("ONNX Runtime's library cannot be opened (", why, "): install it, or give its path as `onnxruntime`"));
}

}  // namespace

OnnxRuntime::OnnxRuntime(const std::string& path) {
  void* library = open_onnxruntime(path);
  const auto get_base = reinterpret_cast<const ort::ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  const std::string name = path.empty() ? "libonnxruntime.so" : path;
  if (!get_base) throw DovitError(text(name, ": not ONNX Runtime's library (it has no OrtGetApiBase)"));
  const ort::Table table = get_base()->get_api(ort::kApiVersion);
  if (!table)
    throw DovitError(
        text(name, ": ONNX Runtime ", get_base()->version(), " is too old: install 1.", ort::kApiVersion, " or newer"));
  api = ort::Api(table);
  version = get_base()->version();
  make_environment();
}

// ONNX Runtime keeps one environment a process and counts its users: where the program or another session has made one
// before, that one is taken. It gets no thread pool of ours, which a program's own sessions would have to use.
void OnnxRuntime::make_environment() {
  check(api.create_env_with_custom_logger(&ignore_message, nullptr, ort::kFatal, "dovit", &env),
        "ONNX Runtime cannot start");
  try {
    check(api.create_cpu_memory_info(ort::kArenaAllocator, ort::kMemoryDefault, &memory), "ONNX Runtime cannot start");
    // grow by what is asked for (1), not to the next power of two
    const char* key = "arena_extend_strategy";
    const size_t value = 1;
    ort::ArenaConfig* arena = nullptr;
    check(api.create_arena_cfg_v2(&key, &value, 1, &arena), "ONNX Runtime cannot start");
    // fails where a session before this one has registered it, which is as good
    api.release_status(api.create_and_register_allocator(env, memory, arena));
    api.release_arena_cfg(arena);
  } catch (...) {
    if (memory) api.release_memory_info(memory);
    api.release_env(env);
    throw;
  }
}

OnnxRuntime::~OnnxRuntime() {
  api.release_memory_info(memory);
  api.release_env(env);
}

void OnnxRuntime::check(ort::Status* status, const std::string& what) const {
  if (!status) return;
  std::string message = api.get_error_message(status);
  api.release_status(status);
  message.erase(0, message.find_first_not_of(" \n"));
  message = message.substr(0, message.find('\n')).substr(0, 300);
  throw DovitError(text(what, ": ", message));
}

}  // namespace dovit::runtime
