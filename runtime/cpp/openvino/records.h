// What Python measured once for a bundle on this CPU and kept in the user's cache folder (runtime/openvino/records.py).
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "bundle/json_fields.h"
#include "bundle/open.h"
#include "openvino/library.h"

namespace dovit::runtime {

// None where the user has no folder for it. The name is a hash of all that the figures depend on: `measurement`, the
// manifest, OpenVINO, the processor, and `about`, whose lines follow. `path`: the bundle as the caller named it. Throws
// DovitError where its manifest cannot be read.
std::optional<std::filesystem::path> record_file(const std::string& kind, int measurement, const Bundle& bundle,
                                                 const std::string& path, const OpenVino& openvino,
                                                 const std::string& about = "");

// What the system says of the processor: its name and instructions. Empty where it says nothing.
std::string processor(const std::string& cpuinfo = "/proc/cpuinfo");

// None where there is none, or one that is damaged.
std::optional<Json> read_record(const std::optional<std::filesystem::path>& file);

}  // namespace dovit::runtime
