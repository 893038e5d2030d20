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

// The bytes of a caller's struct, whose first field is `size`: fewer than this library's where the program was compiled
// with an older dovit.h of the same ABI version. What lies behind them is not the struct's. Throws UsageError for a
// size that holds no option, ends inside a field, or is larger than this library's.
// So a new field goes to the end, and must make the struct larger: where the last field is an int and padding follows,
// another int would be read from the padding of older programs.
template <class Struct>
size_t given_bytes(const Struct& given, const char* name);

// All fields of a caller's struct: those that an older dovit.h lacks have their defaults, as all have for NULL. Throws
// as given_bytes does.
template <class Struct>
Struct whole_struct(const Struct* given, const Struct& defaults, const char* name);

}  // namespace dovit::runtime
