// Checks the structs of dovit.h and converts them to the library's own types. Throws UsageError for an invalid value.
#pragma once

#include "dovit.h"
#include "session/session.h"

namespace dovit::runtime {

LoadOptions load_options(const dovit_load_options& given);
RunOptions run_options(const dovit_run_options& given, const Session& session, const dovit_image& image);
Pixels pixels(const dovit_image& image, const Session& session, const RunOptions& options);

// Whether `memory` is DOVIT_DEVICE. Sessions without a device (null) throw Unsupported for that, and for a stream.
bool on_device(int memory, const char* what, const DeviceMemory* device);
void check_stream(const void* stream, const DeviceMemory* device);

// A caller's struct, whose first field is `size`; the defaults for NULL. Throws UsageError for an unknown size. Structs
// of programs compiled with an older dovit.h are smaller: fields that they lack get their defaults.
template <class Struct>
Struct whole_struct(const Struct* given, const Struct& defaults, const char* name);

}  // namespace dovit::runtime
