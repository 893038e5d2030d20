// The accuracy of a bundle in bf16 on this CPU, as Python measured and recorded it (runtime/openvino/accuracy.py).
#pragma once

#include <string>

#include "bundle/open.h"
#include "openvino/library.h"

namespace dovit::runtime {

// Throws DovitError where bf16 has not been compared with float32 for `bundle` on this CPU and with this OpenVINO, or
// is too far from it. `path`: the bundle as the caller named it.
void check_bf16_accuracy(const Bundle& bundle, const std::string& path, const OpenVino& openvino);

}  // namespace dovit::runtime
