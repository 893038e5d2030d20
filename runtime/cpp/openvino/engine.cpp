#include "openvino/engine.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr ov::ElementType kElementTypes[] = {ov::kU8, ov::kI16, ov::kI32, ov::kI64, ov::kF16, ov::kBf16, ov::kF32};

}  // namespace

OpenVinoEngine::OpenVinoEngine(std::shared_ptr<const OpenVino> library, const Step& step,
                               const std::filesystem::path& folder, const OpenVinoOptions& options)
    : library_(std::move(library)), name_(step.name) {
  for (const std::string& file : step.openvino) {
    OpenVinoOptions own = options;
    if (!models_.empty()) own.bf16 = false;  // the tail: confidences and logits
    compile(folder / file, own);
  }
  connect(step);
}

void OpenVinoEngine::compile(const std::filesystem::path& file, const OpenVinoOptions& options) {
  const ov::Api& api = library_->api;
  const std::string threads = std::to_string(options.threads);
  const char* precision = options.bf16 ? "bf16" : "f32";
  // All `threads` logical cores may be used, and none of the program's threads is bound to a core.
  const auto load = [&](size_t count, const char* key, const char* value, ov::CompiledModel** made) {
    return api.compile_model_from_file(library_->core, file.c_str(), "CPU", count, made, "NUM_STREAMS", "1",
                                       "INFERENCE_NUM_THREADS", threads.c_str(), "ENABLE_HYPER_THREADING", "YES",
                                       "ENABLE_CPU_PINNING", "NO", "INFERENCE_PRECISION_HINT", precision, key, value);
  };
  constexpr size_t kArguments = 10;  // of the five properties above
  ov::CompiledModel* made = nullptr;
  const ov::Status status = options.cache.empty() ? load(kArguments, nullptr, nullptr, &made)
                                                  : load(kArguments + 2, "CACHE_DIR", options.cache.c_str(), &made);
  library_->check(status, "OpenVINO cannot load step " + name_);
  models_.push_back({{made, api.compiled_model_free}, {}, {}});
}

// Finds which model takes and makes which tensor, by the manifest's names: a tensor may have several.
void OpenVinoEngine::connect(const Step& step) {
  const ov::Api& api = library_->api;
  const auto has = [&](const Model& model, auto by_name, const TensorSpec& spec) {
    ov::Port* port = nullptr;
    if (by_name(model.compiled.get(), spec.name.c_str(), &port)) return false;
    ov::ElementType type{};
    const ov::Status status = api.port_get_element_type(port, &type);
    api.port_free(port);
    library_->check(status, "OpenVINO cannot load step " + name_);
    if (type != kElementTypes[static_cast<int>(dtype_of(spec))])
      throw DovitError(text("step ", name_, ": ", spec.name,
                            " has another type in its file for OpenVINO than the manifest says (", spec.dtype.value,
                            "); export the bundle again"));
    return true;
  };
  std::set<std::string> made_before;
  for (size_t number = 0; number < models_.size(); ++number) {
    Model& model = models_[number];
    size_t inputs = 0;
    library_->check(api.inputs_size(model.compiled.get(), &inputs), "OpenVINO cannot load step " + name_);
    for (const TensorSpec& spec : step.inputs)
      if (has(model, api.input_by_name, spec)) model.takes.push_back(spec.name);
    for (size_t input = 0; input < inputs && number; ++input) {  // what the models before this one make for it
      ov::Port* port = nullptr;
      char* name = nullptr;
      library_->check(api.input_by_index(model.compiled.get(), input, &port), "OpenVINO cannot load step " + name_);
      const ov::Status status = api.port_get_any_name(port, &name);
      api.port_free(port);
      library_->check(status, "OpenVINO cannot load step " + name_);
      const std::string wanted = name;
      api.free(name);
      if (std::count(model.takes.begin(), model.takes.end(), wanted)) continue;
      for (size_t before = 0; before < number; ++before) {
        Model& maker = models_[before];
        ov::Port* output = nullptr;
        if (api.output_by_name(maker.compiled.get(), wanted.c_str(), &output)) continue;
        api.port_free(output);
        if (!std::count(maker.makes.begin(), maker.makes.end(), wanted)) maker.makes.push_back(wanted);
        model.takes.push_back(wanted);
        break;
      }
    }
    if (model.takes.size() != inputs)
      throw DovitError(text("step ", name_, ": its file for OpenVINO needs ", inputs, " inputs, and the manifest has ",
                            model.takes.size(), " of them; export the bundle again"));
    for (const TensorSpec& spec : step.outputs)
      if (!made_before.count(spec.name) && has(model, api.output_by_name, spec)) {
        model.makes.push_back(spec.name);
        made_before.insert(spec.name);
      }
  }
  for (const TensorSpec& spec : step.inputs)
    if (std::none_of(models_.begin(), models_.end(), [&](const Model& model) {
          return std::count(model.takes.begin(), model.takes.end(), spec.name) > 0;
        }))
      throw DovitError(
          text("step ", name_, ": its file for OpenVINO has no input ", spec.name, "; export the bundle again"));
  for (const TensorSpec& spec : step.outputs)
    if (!made_before.count(spec.name))
      throw DovitError(
          text("step ", name_, ": its file for OpenVINO has no output ", spec.name, "; export the bundle again"));
}

OpenVinoEngine::Requests OpenVinoEngine::take() const {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      Requests requests = std::move(idle_.back());
      idle_.pop_back();
      return requests;
    }
  }
  Requests requests;
  for (const Model& model : models_) {
    ov::InferRequest* made = nullptr;
    library_->check(library_->api.create_infer_request(model.compiled.get(), &made), failure());
    requests.emplace_back(made, library_->api.infer_request_free);
  }
  return requests;
}

// A tensor over the same memory.
OpenVinoEngine::OwnedTensor OpenVinoEngine::wrapped(const Tensor& tensor) const {
  ov::Tensor* made = nullptr;
  Shape dims = tensor.shape;
  dims.reserve(1);  // a scalar has a place for its dimensions too
  library_->check(
      library_->api.tensor_create_from_host_ptr(kElementTypes[static_cast<int>(tensor.type)],
                                                {static_cast<int64_t>(dims.size()), dims.data()}, tensor.data, &made),
      failure());
  return {made, library_->api.tensor_free};
}

// The values of a tensor that OpenVINO made, which the next pass overwrites.
void OpenVinoEngine::copy_out(const ov::Tensor* from, const std::string& name, Tensor& to) const {
  const ov::Api& api = library_->api;
  ov::ElementType type{};
  library_->check(api.tensor_get_element_type(from, &type), failure());
  if (type != kElementTypes[static_cast<int>(to.type)])
    throw DovitError(text(failure(), ": output ", name, " has another type than the manifest says"));
  ov::Shape shape{};
  library_->check(api.tensor_get_shape(from, &shape), failure());
  const Shape dims(shape.dims, shape.dims + shape.rank);
  api.shape_free(&shape);
  to = make_tensor(to.type, dims);
  if (!to.bytes()) return;
  void* data = nullptr;
  library_->check(api.tensor_data(from, &data), failure());
  std::memcpy(to.data, data, to.bytes());
}

// Throws where an output is not in the place that it was given, as its shape is another.
void OpenVinoEngine::check_place(const ov::Tensor* made, const std::string& name, const Tensor& place) const {
  const ov::Api& api = library_->api;
  ov::Shape shape{};
  library_->check(api.tensor_get_shape(made, &shape), failure());
  const Shape dims(shape.dims, shape.dims + shape.rank);
  api.shape_free(&shape);
  void* data = place.data;
  if (place.bytes()) library_->check(api.tensor_data(made, &data), failure());
  if (dims != place.shape || data != place.data)
    throw DovitError(text(failure(), ": output ", name, " has the shape [", joined(dims), "], not [",
                          joined(place.shape), "]; export the bundle again"));
}

void OpenVinoEngine::run(const Tensors& inputs, Tensors& outputs) const {
  Requests requests = take();
  run(requests, inputs, outputs);
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(requests));  // after a failure they are not given back, but freed
}

void OpenVinoEngine::run(const Requests& requests, const Tensors& inputs, Tensors& outputs) const {
  const ov::Api& api = library_->api;
  std::map<std::string, OwnedTensor> tensors;
  for (const auto& [name, tensor] : inputs) tensors.emplace(name, wrapped(tensor));
  for (size_t number = 0; number < models_.size(); ++number) {
    ov::InferRequest* request = requests[number].get();
    for (const std::string& name : models_[number].takes)
      library_->check(api.set_tensor(request, name.c_str(), tensors.at(name).get()), failure());
    for (const std::string& name : models_[number].makes) {
      const auto place = outputs.find(name);
      if (place == outputs.end() || !place->second.data) continue;
      const auto made = tensors.emplace(name, wrapped(place->second)).first;
      library_->check(api.set_tensor(request, name.c_str(), made->second.get()), failure());
    }
    library_->check(api.infer(request), failure());
    for (const std::string& name : models_[number].makes) {
      ov::Tensor* got = nullptr;
      library_->check(api.get_tensor(request, name.c_str(), &got), failure());
      OwnedTensor made(got, api.tensor_free);
      if (tensors.count(name))
        check_place(made.get(), name, outputs.at(name));
      else
        tensors.emplace(name, std::move(made));
    }
  }
  for (auto& [name, tensor] : outputs)
    if (!tensor.data) copy_out(tensors.at(name).get(), name, tensor);
}

}  // namespace dovit::runtime
