#include "onnxruntime/engine.h"

#include <utility>

#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr ort::ElementType kOrtElementTypes[] = {ort::kUint8,   ort::kInt16,    ort::kInt32,  ort::kInt64,
                                                 ort::kFloat16, ort::kBfloat16, ort::kFloat32};

// Values that are released when the step is over, whichever way it ends.
struct Values {
  const ort::Api& api;
  std::vector<ort::Value*> list;
  ~Values() {
    for (ort::Value* value : list)
      if (value) api.release_value(value);
  }
};

}  // namespace

OnnxRuntimeEngine::OnnxRuntimeEngine(std::shared_ptr<const OnnxRuntime> library, std::string name,
                                     const std::filesystem::path& model, int threads, bool prepack)
    : library_(std::move(library)), name_(std::move(name)) {
  const ort::Api& api = library_->api;
  const std::string what = "ONNX Runtime cannot load step " + name_;
  ort::SessionOptions* options = nullptr;
  library_->check(api.create_session_options(&options), what);
  const std::unique_ptr<ort::SessionOptions, decltype(api.release_session_options)> owned(options,
                                                                                          api.release_session_options);
  const auto set = [&](const char* key, const char* value) {
    library_->check(api.add_session_config_entry(options, key, value), what);
  };
  // Each step has threads of its own, which sleep unless the step runs: threads that spin would take CPU time from the
  // other steps' and from the program's own between two images.
  library_->check(api.set_intra_op_num_threads(options, threads), what);
  library_->check(api.set_inter_op_num_threads(options, 1), what);
  set("session.intra_op.allow_spinning", "0");
  // int8 products of x86 CPUs without VNNI: with sums in 32 bits, not in 16, which saturate
  set("session.x64quantprecision", "1");
  set("session.use_env_allocators", "1");
  // weights lie outside the arena, which is never given back: closing a session frees them
  set("session.use_device_allocator_for_initializers", "1");
  library_->check(api.set_session_log_severity_level(options, ort::kError), what);
  if (!prepack) set("session.disable_prepacking", "1");
  library_->check(api.create_session(library_->env, model.c_str(), options, &session_), what);
}

OnnxRuntimeEngine::~OnnxRuntimeEngine() { library_->api.release_session(session_); }

ort::Value* OnnxRuntimeEngine::value_of(const Tensor& tensor) const {
  ort::Value* value = nullptr;
  library_->check(library_->api.create_tensor_with_data(library_->memory, tensor.data, tensor.bytes(),
                                                        tensor.shape.data(), tensor.shape.size(),
                                                        kOrtElementTypes[static_cast<int>(tensor.type)], &value),
                  "ONNX Runtime failed in step " + name_);
  return value;
}

// The value of an output that ONNX Runtime made belongs to the tensor from here on, also when this fails.
void OnnxRuntimeEngine::take_over(ort::Value* value, Tensor& tensor) const {
  const ort::Api& api = library_->api;
  const std::string what = "ONNX Runtime failed in step " + name_;
  tensor.owner = std::shared_ptr<void>(
      value, [library = library_](void* made) { library->api.release_value(static_cast<ort::Value*>(made)); });
  ort::TensorInfo* info = nullptr;
  library_->check(api.get_tensor_type_and_shape(value, &info), what);
  const std::unique_ptr<ort::TensorInfo, decltype(api.release_tensor_info)> owned(info, api.release_tensor_info);
  ort::ElementType type{};
  size_t count = 0;
  library_->check(api.get_tensor_element_type(info, &type), what);
  library_->check(api.get_dimensions_count(info, &count), what);
  if (type != kOrtElementTypes[static_cast<int>(tensor.type)])
    throw DovitError(text(what, ": an output has another type than the manifest says"));
  tensor.shape.resize(count);
  library_->check(api.get_dimensions(info, tensor.shape.data(), count), what);
  library_->check(api.get_tensor_mutable_data(value, &tensor.data), what);
}

void OnnxRuntimeEngine::run(const Tensors& inputs, Tensors& outputs) const {
  Values in{library_->api, {}}, out{library_->api, {}};
  std::vector<const char*> in_names, out_names;
  for (const auto& [name, tensor] : inputs) {
    in_names.push_back(name.c_str());
    in.list.push_back(value_of(tensor));
  }
  for (const auto& [name, tensor] : outputs) {
    out_names.push_back(name.c_str());
    out.list.push_back(tensor.data ? value_of(tensor) : nullptr);
  }
  library_->check(library_->api.run(session_, nullptr, in_names.data(), in.list.data(), in.list.size(),
                                    out_names.data(), out_names.size(), out.list.data()),
                  "ONNX Runtime failed in step " + name_);
  size_t number = 0;
  for (auto& [name, tensor] : outputs) {
    ort::Value*& value = out.list[number++];
    if (!tensor.data) take_over(std::exchange(value, nullptr), tensor);
  }
}

}  // namespace dovit::runtime
