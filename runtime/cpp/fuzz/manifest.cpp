// Fuzzes the readers of manifests and programs: any bytes are read and checked, or refused with a sentence. For a
// manifest that passes the buffers of a run are allocated, which sizes out of bounds would make fail.
#include "bundle/check.h"
#include "bundle/program.h"
#include "bundle/read.h"
#include "chain/buffers.h"
#include "errors.h"

using namespace dovit::runtime;

namespace {

template <class Read>
void try_to(const Read& read) {
  try {
    read();
  } catch (const DovitError& error) {
    if (std::string(error.what()).find('\n') != std::string::npos) __builtin_trap();  // one line
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string content(reinterpret_cast<const char*>(data), size);
  try_to([&] {
    const Manifest manifest = parse_manifest(content, "bundle.json");
    check_manifest(manifest, "bundle.json");
    plan_buffers(manifest);
  });
  try_to([&] { parse_program(content, "program.json", "build the plans again"); });
  return 0;
}
