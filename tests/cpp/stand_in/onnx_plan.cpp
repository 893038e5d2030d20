#include "onnx_plan.h"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sstream>

#include "errors.h"
#include "stand_in.h"

namespace stand_in {

namespace ort = dovit::runtime::ort;
using dovit::runtime::DovitError;
using dovit::runtime::OnnxRuntime;
using dovit::runtime::text;

namespace {

struct Allocator;
struct TypeInfo;

// Functions of ONNX Runtime that the runtime itself does not use; their indices, as in onnxruntime/api.h.
struct MoreApi {
  explicit MoreApi(ort::Table table) : table(table) {}
  ort::Table table;
  ort::Function<8, ort::Status*(const ort::Env*, const void*, size_t, const ort::SessionOptions*, ort::Session**)>
      create_session_from_array{table};
  ort::Function<30, ort::Status*(const ort::Session*, size_t*)> get_input_count{table};
  ort::Function<31, ort::Status*(const ort::Session*, size_t*)> get_output_count{table};
  ort::Function<33, ort::Status*(const ort::Session*, size_t, TypeInfo**)> get_input_type{table};
  ort::Function<34, ort::Status*(const ort::Session*, size_t, TypeInfo**)> get_output_type{table};
  ort::Function<36, ort::Status*(const ort::Session*, size_t, Allocator*, char**)> get_input_name{table};
  ort::Function<37, ort::Status*(const ort::Session*, size_t, Allocator*, char**)> get_output_name{table};
  ort::Function<55, ort::Status*(const TypeInfo*, const ort::TensorInfo**)> as_tensor{table};
  ort::Function<76, ort::Status*(Allocator*, void*)> free{table};
  ort::Function<78, ort::Status*(Allocator**)> get_allocator{table};
  ort::Function<98, void(TypeInfo*)> release_type{table};
};

// One for all plans: a process has one environment of ONNX Runtime.
std::shared_ptr<const OnnxRuntime> open_library() {
  static std::mutex mutex;
  static std::weak_ptr<const OnnxRuntime> opened;
  const std::lock_guard<std::mutex> lock(mutex);
  auto library = opened.lock();
  if (!library) {
    const char* path = std::getenv("DOVIT_STAND_IN_ONNXRUNTIME");
    opened = library = std::make_shared<const OnnxRuntime>(path ? path : "");
  }
  return library;
}

size_t item_bytes(ort::ElementType type) {
  switch (type) {
    case ort::kUint8:
      return 1;
    case ort::kInt16:
    case ort::kFloat16:
    case ort::kBfloat16:
      return 2;
    case ort::kFloat32:
    case ort::kInt32:
      return 4;
    case ort::kInt64:
      return 8;
  }
  throw DovitError(text("a tensor of ONNX type ", static_cast<int>(type), " is none of the chain's"));
}

size_t bytes_of(ort::ElementType type, const Dims& dims) {
  size_t bytes = item_bytes(type);
  for (const int64_t size : dims) bytes *= static_cast<size_t>(size);
  return bytes;
}

Port port_of(const OnnxRuntime& library, const ort::TensorInfo* info) {
  Port port;
  size_t count = 0;
  library.check(library.api.get_tensor_element_type(info, &port.type), "type");
  library.check(library.api.get_dimensions_count(info, &count), "shape");
  port.dims.resize(count);
  library.check(library.api.get_dimensions(info, port.dims.data(), count), "shape");
  return port;
}

template <class Count, class Name, class Type>
std::map<std::string, Port> ports_of(const OnnxRuntime& library, const MoreApi& more, const ort::Session* session,
                                     Count get_count, Name get_name, Type get_type) {
  Allocator* allocator = nullptr;
  library.check(more.get_allocator(&allocator), "allocator");
  size_t count = 0;
  library.check(get_count(session, &count), "count");
  std::map<std::string, Port> ports;
  for (size_t k = 0; k < count; ++k) {
    char* name = nullptr;
    library.check(get_name(session, k, allocator, &name), "name");
    TypeInfo* type = nullptr;
    const ort::TensorInfo* info = nullptr;
    library.check(get_type(session, k, &type), "type");
    library.check(more.as_tensor(type, &info), "type");
    ports[name] = port_of(library, info);
    more.release_type(type);
    library.check(more.free(allocator, name), "name");
  }
  return ports;
}

Dims dims_in(const std::string& text) {
  std::istringstream stream(text);
  Dims dims;
  for (std::string size; std::getline(stream, size, 'x');) dims.push_back(std::stoll(size));
  return dims;
}

// What plan_bundles.py writes into the model's description: for each profile `INPUT LEAST MOST …`, then `/`, and `;` in
// the end, each with a space after it; a shape is 1x5x64.
std::vector<Profile> profiles_in(const std::string& bytes) {
  const std::string start = "dovit-profiles: ";
  const size_t at = bytes.find(start);
  std::vector<Profile> profiles;
  if (at == std::string::npos) return profiles;
  std::istringstream stream(bytes.substr(at + start.size(), 10000));
  Profile profile;
  for (std::string word, least, most; stream >> word && word != ";";) {
    if (word == "/") {
      profiles.push_back(std::move(profile));
      profile.clear();
    } else if (stream >> least >> most) {
      profile[word] = {dims_in(least), dims_in(most)};
    }
  }
  return profiles;
}

void check_memory(const std::string& name, const void* data, size_t bytes) {
  if (bytes && !stand_in_holds(data, bytes))
    throw DovitError(text("a plan's tensor ", name, " of ", bytes, " bytes does not lie in memory of the device"));
}

}  // namespace

OnnxPlan::OnnxPlan(const void* bytes, size_t size)
    : digest(std::to_string(std::hash<std::string>()(std::string(static_cast<const char*>(bytes), size)))),
      library_(open_library()) {
  const ort::Api& api = library_->api;
  const MoreApi more(api.table);
  ort::SessionOptions* options = nullptr;
  library_->check(api.create_session_options(&options), "options");
  const std::unique_ptr<ort::SessionOptions, decltype(api.release_session_options)> owned(options,
                                                                                          api.release_session_options);
  library_->check(api.set_intra_op_num_threads(options, 1), "options");  // the thread that calls
  library_->check(api.set_session_log_severity_level(options, ort::kFatal), "options");
  library_->check(more.create_session_from_array(library_->env, bytes, size, options, &session_), "not a plan");
  inputs = ports_of(*library_, more, session_, more.get_input_count, more.get_input_name, more.get_input_type);
  profiles = profiles_in(std::string(static_cast<const char*>(bytes), size));
  outputs = ports_of(*library_, more, session_, more.get_output_count, more.get_output_name, more.get_output_type);
}

OnnxPlan::~OnnxPlan() { library_->api.release_session(session_); }

void OnnxPlan::run(const std::map<std::string, Place>& places) const {
  const ort::Api& api = library_->api;
  const auto release = [&api](ort::Value* value) { api.release_value(value); };
  std::vector<std::unique_ptr<ort::Value, decltype(release)>> owned;
  std::vector<const char*> in_names, out_names;
  std::vector<const ort::Value*> in;
  for (const auto& [name, port] : inputs) {
    const Place& place = places.at(name);
    const size_t bytes = bytes_of(port.type, place.dims);
    check_memory(name, place.data, bytes);
    ort::Value* value = nullptr;
    library_->check(api.create_tensor_with_data(library_->memory, place.data, bytes, place.dims.data(),
                                                place.dims.size(), port.type, &value),
                    name);
    owned.emplace_back(value, release);
    in_names.push_back(name.c_str());
    in.push_back(value);
  }
  for (const auto& [name, port] : outputs) out_names.push_back(name.c_str());
  std::vector<ort::Value*> out(outputs.size());
  library_->check(
      api.run(session_, nullptr, in_names.data(), in.data(), in.size(), out_names.data(), out.size(), out.data()),
      "a plan failed");
  for (ort::Value* value : out) owned.emplace_back(value, release);
  for (size_t k = 0; k < out.size(); ++k) {
    ort::TensorInfo* info = nullptr;
    library_->check(api.get_tensor_type_and_shape(out[k], &info), out_names[k]);
    const Port made = port_of(*library_, info);
    api.release_tensor_info(info);
    void* data = nullptr;
    library_->check(api.get_tensor_mutable_data(out[k], &data), out_names[k]);
    void* to = places.at(out_names[k]).data;
    const size_t bytes = bytes_of(made.type, made.dims);
    check_memory(out_names[k], to, bytes);
    if (bytes) std::memcpy(to, data, bytes);
  }
}

}  // namespace stand_in
