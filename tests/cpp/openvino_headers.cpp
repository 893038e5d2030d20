// Compiled, not run: the declarations of runtime/cpp/openvino/api.h equal those of OpenVINO's headers.
#include <openvino/c/openvino.h>

#include <type_traits>

#include "openvino/api.h"

namespace {

namespace own = dovit::runtime::ov;

// OpenVINO's type for one of ours.
template <class T>
struct Theirs {
  using type = T;
};
template <class Ours, class Type>
struct Is {
  using type = Type;
};
template <>
struct Theirs<own::Core> : Is<own::Core, ov_core_t> {};
template <>
struct Theirs<own::CompiledModel> : Is<own::CompiledModel, ov_compiled_model_t> {};
template <>
struct Theirs<own::InferRequest> : Is<own::InferRequest, ov_infer_request_t> {};
template <>
struct Theirs<own::Tensor> : Is<own::Tensor, ov_tensor_t> {};
template <>
struct Theirs<own::Port> : Is<own::Port, ov_output_const_port_t> {};
template <>
struct Theirs<own::Shape> : Is<own::Shape, ov_shape_t> {};
template <>
struct Theirs<own::Version> : Is<own::Version, ov_version_t> {};
template <>
struct Theirs<own::ElementType> : Is<own::ElementType, ov_element_type_e> {};
template <class T>
struct Theirs<const T> {
  using type = const typename Theirs<T>::type;
};
template <class T>
struct Theirs<T*> {
  using type = typename Theirs<T>::type*;
};
// the result ov_status_e is an int of ours: an enumeration with negative values
template <class T>
struct Result : Theirs<T> {};
template <>
struct Result<own::Status> : Is<own::Status, ov_status_e> {};
template <class R, class... A>
struct Theirs<R (*)(A...)> {
  using type = typename Result<R>::type (*)(typename Theirs<A>::type...);
};
template <class R, class... A>
struct Theirs<R (*)(A..., ...)> {
  using type = typename Result<R>::type (*)(typename Theirs<A>::type..., ...);
};

#define SAME(member, function, result, arguments) \
  static_assert(std::is_same_v<Theirs<decltype(own::Api::member)>::type, decltype(&function)>, #function);
DOVIT_OPENVINO_FUNCTIONS(SAME)

static_assert(sizeof(ov_status_e) == sizeof(own::Status) && ov_status_e::OK == 0);
static_assert(sizeof(ov_element_type_e) == sizeof(own::ElementType));
static_assert(static_cast<int>(own::kBf16) == BF16 && static_cast<int>(own::kF16) == F16 &&
              static_cast<int>(own::kF32) == F32 && static_cast<int>(own::kI16) == I16 &&
              static_cast<int>(own::kI32) == I32 && static_cast<int>(own::kI64) == I64 &&
              static_cast<int>(own::kU8) == U8);
static_assert(sizeof(ov_shape_t) == sizeof(own::Shape) && offsetof(ov_shape_t, rank) == offsetof(own::Shape, rank) &&
              offsetof(ov_shape_t, dims) == offsetof(own::Shape, dims));
static_assert(sizeof(ov_version_t) == sizeof(own::Version) &&
              offsetof(ov_version_t, buildNumber) == offsetof(own::Version, build));

}  // namespace

int main() { return 0; }
