// A step's files for OpenVINO on its CPU device: its body in the session's precision, its tail in float32.
#pragma once

#include <filesystem>
#include <mutex>

#include "bundle/manifest.h"
#include "chain/engine.h"
#include "non_copyable.h"
#include "openvino/library.h"

namespace dovit::runtime {

struct OpenVinoOptions {
  int threads = 1;              // CPU threads that run the step
  bool bf16 = false;            // the body's precision; else float32
  std::filesystem::path cache;  // folder for what OpenVINO compiles; empty: none
};

class OpenVinoEngine : public Engine, NonCopyable {
 public:
  // `folder`: of the bundle, in which `step` has files. Throws DovitError where one cannot be compiled, or where they
  // have no such inputs and outputs, have them of another type, or need more inputs.
  OpenVinoEngine(std::shared_ptr<const OpenVino> library, const Step& step, const std::filesystem::path& folder,
                 const OpenVinoOptions& options);

  void run(const Tensors& inputs, Tensors& outputs) const override;

 private:
  template <class T>
  using Owned = std::unique_ptr<T, void (*)(T*)>;
  using OwnedTensor = Owned<ov::Tensor>;
  using Requests = std::vector<Owned<ov::InferRequest>>;  // one a model

  struct Model {
    Owned<ov::CompiledModel> compiled;
    std::vector<std::string> takes, makes;  // makes: results of the step, and what the next model takes
  };

  void compile(const std::filesystem::path& file, const OpenVinoOptions& options);
  void connect(const Step& step);
  std::string failure() const { return "OpenVINO failed in step " + name_; }
  Requests take() const;
  OwnedTensor wrapped(const Tensor& tensor) const;
  void check_place(const ov::Tensor* made, const std::string& name, const Tensor& place) const;
  void copy_out(const ov::Tensor* from, const std::string& name, Tensor& to) const;
  void run(const Requests& requests, const Tensors& inputs, Tensors& outputs) const;

  const std::shared_ptr<const OpenVino> library_;
  const std::string name_;
  std::vector<Model> models_;
  mutable std::mutex mutex_;
  mutable std::vector<Requests> idle_;  // each pass takes one, so threads share an engine
};

}  // namespace dovit::runtime
