#include "openvino/library.h"

#include <dlfcn.h>

#include <sstream>

#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr const char* kName = "libopenvino_c.so";

// The last informative line of OpenVINO's message, which has many lines.
std::string last_line(const std::string& message) {
  std::istringstream lines(message);
  std::string line, last = "no reason given";
  while (std::getline(lines, line)) {
    line.erase(0, line.find_first_not_of(" \t"));
    if (!line.empty() && line.find("Exception from") == std::string::npos) last = line;
  }
  return last.substr(0, 300);
}

}  // namespace

OpenVino::OpenVino(const std::string& path) {
  const std::string name = path.empty() ? kName : path;
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: its threads outlive the last session
  if (!library) {
    const char* reason = dlerror();
    throw DovitError(text("OpenVINO's library cannot be opened (", reason ? reason : name,
                          "): install it, or give the path of its libopenvino_c.so as `openvino`"));
  }
#define DOVIT_OPENVINO_FIND(member, function, result, arguments)                  \
  api.member = reinterpret_cast<decltype(api.member)>(dlsym(library, #function)); \
  if (!api.member)                                                                \
    throw DovitError(text(name, ": not OpenVINO's C library, or one that is too old (it has no " #function ")"));
  DOVIT_OPENVINO_FUNCTIONS(DOVIT_OPENVINO_FIND)
#undef DOVIT_OPENVINO_FIND
  check_element_types();
  check(api.core_create(&core), "OpenVINO cannot start");
  try {
    property("FULL_DEVICE_NAME");
  } catch (...) {
    api.core_free(core);
    throw;
  }
}

OpenVino::~OpenVino() { api.core_free(core); }

// The numbers of element types have changed between versions, and nothing else says which ones a library has.
void OpenVino::check_element_types() const {
  struct Expected {
    ov::ElementType type;
    size_t bytes;
  };
  int64_t one = 1;
  double value = 0;
  for (const Expected expected : {Expected{ov::kBf16, 2},
                                  {ov::kF16, 2},
                                  {ov::kF32, 4},
                                  {ov::kI16, 2},
                                  {ov::kI32, 4},
                                  {ov::kI64, 8},
                                  {ov::kU8, 1}}) {
    ov::Tensor* tensor = nullptr;
    size_t bytes = 0;
    const bool made = !api.tensor_create_from_host_ptr(expected.type, {1, &one}, &value, &tensor) &&
                      !api.tensor_get_byte_size(tensor, &bytes);
    if (tensor) api.tensor_free(tensor);
    if (made && bytes == expected.bytes) continue;
    throw DovitError(
        text("OpenVINO ", build(), " numbers its element types differently: install 2026.4 or a version near it"));
  }
}

std::string OpenVino::build() const {
  ov::Version version{};
  api.get_version(&version);
  const std::string build = version.build ? version.build : "of an unknown version";
  api.version_free(&version);
  return build;
}

std::string OpenVino::property(const char* name) const {
  char* value = nullptr;
  check(api.core_get_property(core, "CPU", name, &value), "OpenVINO has no CPU device here");
  const std::string copied = value ? value : "";
  api.free(value);
  return copied;
}

bool OpenVino::computes_bf16() const { return property("OPTIMIZATION_CAPABILITIES").find("BF16") != std::string::npos; }

void OpenVino::check(ov::Status status, const std::string& what) const {
  if (!status) return;
  const char* message = api.get_last_error();
  const std::string reason = last_line(message ? message : "");
  if (message) api.free(message);
  throw DovitError(text(what, ": ", reason));
}

}  // namespace dovit::runtime
