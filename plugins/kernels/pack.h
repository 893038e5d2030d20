// Sixteen bytes of a token at a time, and the arithmetic of its elements in float32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "team.h"

namespace dovit {

// `kCount` neighbouring elements; kCount 1 is the path for channels that sixteen bytes do not divide.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};

template <class T>
constexpr int kPackCount = 16 / static_cast<int>(sizeof(T));

DOVIT_HD float to_float(float value) { return value; }
template <class T>
DOVIT_HD T from_float(float value) {
  return static_cast<T>(value);
}

DOVIT_HD float to_float(__half value) { return __half2float(value); }
DOVIT_HD float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
template <>
DOVIT_HD __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
DOVIT_HD __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

}  // namespace dovit
