// The named dimensions of tensors: see runtime/bundle/tensors.py.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "bundle/manifest.h"

namespace dovit::runtime {

using Dimensions = std::map<std::string, int64_t>;
using Shape = std::vector<int64_t>;

// Sets the dimensions that decision `number` (from 1) fixes when it keeps `kept` tokens.
void set_kept(Dimensions& dims, const Manifest& manifest, size_t number, int64_t kept);

// Every named dimension of one image at its largest: each decision keeps all tokens.
Dimensions full_dims(const Manifest& manifest);

// The shape of a tensor. Throws DovitError where a dimension is not known yet.
Shape resolve(const TensorSpec& spec, const Dimensions& dims);

}  // namespace dovit::runtime
