// TensorRT-RTX's library itself, opened as a session opens it, on a machine with or without a GPU.
//   tensorrt_library LIBRARY VERSION
#include "errors.h"
#include "expect.h"
#include "tensorrt/library.h"

using namespace dovit::runtime;

int main(int, char** arguments) {
  const std::string path = arguments[1], version = arguments[2];
  const TensorRtLibrary library("tensorrt-rtx", path, version);
  EXPECT(library.version() == version);
  LastError log;
  const auto runtime = library.create_runtime(log);
  EXPECT(runtime && log.text() == "it does not say why");
  // of the header's size, but without its magic number
  EXPECT(runtime->why_invalid(std::string(100000, 'x')).find("MALFORMED_ENGINE") != std::string::npos);
  EXPECT(runtime->why_invalid("short") == "");
  EXPECT(!runtime->deserialize(std::string(700, 'x')));
  EXPECT(log.text() != "it does not say why");  // which comes through the logger
  try {
    TensorRtLibrary("tensorrt-rtx", "nowhere.so", version);
    EXPECT(!"refused");
  } catch (const DovitError& error) {
    EXPECT(std::string(error.what()).rfind("TensorRT-RTX's library cannot be opened (nowhere.so: ", 0) == 0);
  }
}
