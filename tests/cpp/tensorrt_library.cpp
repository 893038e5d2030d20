// TensorRT-RTX's library itself, opened as a session opens it, on a machine with or without a GPU.
#include "errors.h"
#include "expect.h"
#include "tensorrt/library.h"

using namespace dovit::runtime;

int main(int, char** arguments) {
  const std::string path = arguments[1], version = arguments[2];
  TensorRt library("tensorrt-rtx", path, version);
  EXPECT(library.version() == version);
  library.start();
  EXPECT(library.reason() == "it does not say why");
  try {
    library.deserialize(std::string(700, 'x'), "plan");
    EXPECT(!"refused");
  } catch (const DovitError& error) {  // what it says of it comes through the logger
    const std::string sentence = error.what(), expected = "plan: TensorRT-RTX does not take this plan: ";
    EXPECT(sentence.rfind(expected, 0) == 0 && sentence != expected + "it does not say why");
  }
  try {
    TensorRt("tensorrt-rtx", "nowhere.so", version);
    EXPECT(!"refused");
  } catch (const DovitError& error) {
    EXPECT(std::string(error.what()).rfind("TensorRT-RTX's library cannot be opened (nowhere.so: ", 0) == 0);
  }
}
