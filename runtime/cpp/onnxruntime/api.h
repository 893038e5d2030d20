// The part of ONNX Runtime's C interface that is used here, declared instead of included: no wheel, npm package or
// package of Debian 12 has its header (docs/embedding.md), and OrtApi is stable by its own rule. It is a table of
// functions that only grows at its end, so a function's number never changes, and OrtGetApiBase()->GetApi(19) is the
// same table in every later version. The numbers below are those functions' places in it. All types are
// opaque.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dovit::runtime::ort {

constexpr uint32_t kApiVersion = 19;  // ONNX Runtime 1.19, the oldest that the Python runtime takes

struct Status;
struct Env;
struct ArenaConfig;
struct MemoryInfo;
struct SessionOptions;
struct RunOptions;
struct Session;
struct Value;
struct TensorInfo;

enum LoggingLevel : int { kWarning = 2, kError = 3, kFatal = 4 };
enum AllocatorType : int { kArenaAllocator = 1 };
enum MemoryType : int { kMemoryDefault = 0 };
enum ElementType : int {
  kFloat32 = 1,
  kUint8 = 2,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kFloat16 = 10,
  kBfloat16 = 16,
};

using LogFunction = void (*)(void* param, LoggingLevel level, const char* category, const char* log_id,
                             const char* location, const char* message);

using Table = void (*const*)();  // OrtApi

struct ApiBase {
  Table (*get_api)(uint32_t version);
  const char* (*version)();
};

// One function of the table: its number, and what it takes.
template <size_t kNumber, class Signature>
struct Function;
template <size_t kNumber, class Result, class... Arguments>
struct Function<kNumber, Result(Arguments...)> {
  Table table;
  Result operator()(Arguments... arguments) const {
    return reinterpret_cast<Result (*)(Arguments...)>(table[kNumber])(arguments...);
  }
};

struct Api {
  explicit Api(Table table) : table(table) {}
  Table table;

  Function<2, const char*(const Status*)> get_error_message{table};
  Function<93, void(Status*)> release_status{table};

  Function<4, Status*(LogFunction, void*, LoggingLevel, const char*, Env**)> create_env_with_custom_logger{table};
  Function<92, void(Env*)> release_env{table};

  Function<69, Status*(AllocatorType, MemoryType, MemoryInfo**)> create_cpu_memory_info{table};
  Function<94, void(MemoryInfo*)> release_memory_info{table};
  Function<164, Status*(const char* const*, const size_t*, size_t, ArenaConfig**)> create_arena_cfg_v2{table};
  Function<157, void(ArenaConfig*)> release_arena_cfg{table};
  Function<144, Status*(Env*, const MemoryInfo*, const ArenaConfig*)> create_and_register_allocator{table};

  Function<10, Status*(SessionOptions**)> create_session_options{table};
  Function<22, Status*(SessionOptions*, int)> set_session_log_severity_level{table};
  Function<24, Status*(SessionOptions*, int)> set_intra_op_num_threads{table};
  Function<25, Status*(SessionOptions*, int)> set_inter_op_num_threads{table};
  Function<130, Status*(SessionOptions*, const char*, const char*)> add_session_config_entry{table};
  Function<100, void(SessionOptions*)> release_session_options{table};
  Function<7, Status*(const Env*, const char*, const SessionOptions*, Session**)> create_session{table};
  Function<95, void(Session*)> release_session{table};

  Function<49, Status*(const MemoryInfo*, void*, size_t, const int64_t*, size_t, ElementType, Value**)>
      create_tensor_with_data{table};
  Function<51, Status*(Value*, void**)> get_tensor_mutable_data{table};
  Function<65, Status*(const Value*, TensorInfo**)> get_tensor_type_and_shape{table};
  Function<60, Status*(const TensorInfo*, ElementType*)> get_tensor_element_type{table};
  Function<61, Status*(const TensorInfo*, size_t*)> get_dimensions_count{table};
  Function<62, Status*(const TensorInfo*, int64_t*, size_t)> get_dimensions{table};
  Function<99, void(TensorInfo*)> release_tensor_info{table};
  Function<96, void(Value*)> release_value{table};
  Function<9, Status*(Session*, const RunOptions*, const char* const*, const Value* const*, size_t, const char* const*,
                      size_t, Value**)>
      run{table};
};

}  // namespace dovit::runtime::ort
