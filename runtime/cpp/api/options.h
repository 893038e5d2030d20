// The structs of dovit.h as the library's own types, with what cannot be right refused.
#pragma once

#include "dovit.h"
#include "session/session.h"

namespace dovit::runtime {

LoadOptions load_options(const dovit_load_options& given);
RunOptions run_options(const dovit_run_options& given, const Session& session, const dovit_image& image);
Pixels pixels(const dovit_image& image, const Session& session, const RunOptions& options);

// Whether `memory` is the device's, which a session without one refuses, as it refuses streams.
bool on_device(int memory, const char* what, const DeviceMemory* device);
void check_stream(const void* stream, const DeviceMemory* device);

// A struct of the caller's that begins with `size`, or the defaults for NULL. Throws UsageError for an unknown size.
// Once a struct has grown, the sizes it had before are known too, and the defaults fill up what they lack.
template <class Struct>
Struct whole_struct(const Struct* given, const Struct& defaults, const char* name);

}  // namespace dovit::runtime
