// Whether OpenVINO or ONNX Runtime is faster for a bundle on this CPU, as Python measured and kept it
// (runtime/openvino/speed.py).
#pragma once

#include <memory>
#include <string>

#include "bundle/open.h"
#include "onnxruntime/library.h"
#include "openvino/library.h"

namespace dovit::runtime {

// ONNX Runtime, opened from `library`, where it is faster than OpenVINO for `bundle` in float32 with so many threads;
// null where OpenVINO is, or where the system finds no ONNX Runtime. Models from 30 GMACs an image on are faster with
// OpenVINO, and smaller ones are taken to be faster with ONNX Runtime where they have not been measured. Throws
// DovitError where a `library` that is named cannot be opened, or where the manifest cannot be read. `path`: the bundle
// as the caller named it.
std::shared_ptr<const OnnxRuntime> onnxruntime_if_faster(const Bundle& bundle, const std::string& path,
                                                         const OpenVino& openvino, const std::string& library,
                                                         int threads);

}  // namespace dovit::runtime
