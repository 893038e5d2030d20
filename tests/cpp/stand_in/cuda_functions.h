// Every function of the stand-in, declared with the type that CUDA's headers give it.
#pragma once

#include <cudaTypedefs.h>

#include <type_traits>

namespace stand_in {

#define STAND_IN(name, since, function) std::remove_pointer_t<PFN_##name##_v##since> function;
#include "cuda_functions.inc"
#undef STAND_IN

}  // namespace stand_in
