// The part of OpenVINO's C interface that is used here, declared instead of included, so that a build needs no
// OpenVINO: the functions of libopenvino_c.so (openvino/c/*.h), looked up by name. tests/cpp/openvino_headers.cpp
// compares each with OpenVINO's own headers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dovit::runtime::ov {

struct Core;
struct CompiledModel;
struct InferRequest;
struct Tensor;
struct Port;

using Status = int;  // ov_status_e; 0: success

// ov_element_type_e. Other versions than OpenVINO::open() takes number them differently.
enum ElementType : unsigned {
  kBf16 = 2,
  kF16 = 3,
  kF32 = 4,
  kI16 = 8,
  kI32 = 9,
  kI64 = 10,
  kU8 = 16,
};

struct Shape {
  int64_t rank;
  int64_t* dims;
};

struct Version {
  const char* build;
  const char* description;
};

// X(member, function, result, arguments)
#define DOVIT_OPENVINO_FUNCTIONS(X)                                                                               \
  X(get_version, ov_get_openvino_version, Status, (Version*))                                                     \
  X(version_free, ov_version_free, void, (Version*))                                                              \
  X(get_last_error, ov_get_last_err_msg, const char*, ())                                                         \
  X(free, ov_free, void, (const char*))                                                                           \
  X(core_create, ov_core_create, Status, (Core**))                                                                \
  X(core_free, ov_core_free, void, (Core*))                                                                       \
  X(core_get_property, ov_core_get_property, Status, (const Core*, const char*, const char*, char**))             \
  X(compile_model_from_file, ov_core_compile_model_from_file, Status,                                             \
    (const Core*, const char*, const char*, size_t, CompiledModel**, ...))                                        \
  X(compiled_model_free, ov_compiled_model_free, void, (CompiledModel*))                                          \
  X(inputs_size, ov_compiled_model_inputs_size, Status, (const CompiledModel*, size_t*))                          \
  X(input_by_index, ov_compiled_model_input_by_index, Status, (const CompiledModel*, size_t, Port**))             \
  X(input_by_name, ov_compiled_model_input_by_name, Status, (const CompiledModel*, const char*, Port**))          \
  X(output_by_name, ov_compiled_model_output_by_name, Status, (const CompiledModel*, const char*, Port**))        \
  X(port_get_any_name, ov_port_get_any_name, Status, (const Port*, char**))                                       \
  X(port_get_element_type, ov_port_get_element_type, Status, (const Port*, ElementType*))                         \
  X(port_free, ov_output_const_port_free, void, (Port*))                                                          \
  X(create_infer_request, ov_compiled_model_create_infer_request, Status, (const CompiledModel*, InferRequest**)) \
  X(infer_request_free, ov_infer_request_free, void, (InferRequest*))                                             \
  X(set_tensor, ov_infer_request_set_tensor, Status, (InferRequest*, const char*, const Tensor*))                 \
  X(get_tensor, ov_infer_request_get_tensor, Status, (const InferRequest*, const char*, Tensor**))                \
  X(infer, ov_infer_request_infer, Status, (InferRequest*))                                                       \
  X(tensor_create_from_host_ptr, ov_tensor_create_from_host_ptr, Status, (ElementType, Shape, void*, Tensor**))   \
  X(tensor_get_shape, ov_tensor_get_shape, Status, (const Tensor*, Shape*))                                       \
  X(tensor_get_byte_size, ov_tensor_get_byte_size, Status, (const Tensor*, size_t*))                              \
  X(tensor_get_element_type, ov_tensor_get_element_type, Status, (const Tensor*, ElementType*))                   \
  X(tensor_data, ov_tensor_data, Status, (const Tensor*, void**))                                                 \
  X(tensor_free, ov_tensor_free, void, (Tensor*))                                                                 \
  X(shape_free, ov_shape_free, Status, (Shape*))

struct Api {
#define DOVIT_OPENVINO_MEMBER(member, function, result, arguments) result(*member) arguments = nullptr;
  DOVIT_OPENVINO_FUNCTIONS(DOVIT_OPENVINO_MEMBER)
#undef DOVIT_OPENVINO_MEMBER
};

}  // namespace dovit::runtime::ov
