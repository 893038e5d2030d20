// A bundle ready to segment images of any size. Several threads may call one session at a time.
#pragma once

#include "bundle/open.h"
#include "image/pixels.h"
#include "session/result.h"

namespace dovit::runtime {

struct LoadOptions {
  std::string backend = "auto";   // auto, onnxruntime, tensorrt, tensorrt-rtx
  std::string device;             // cpu, cuda:N; empty: what the backend runs on
  std::string provider = "auto";  // on a CPU: cpu (ONNX Runtime's own), openvino; auto: the faster
  std::string onnxruntime;        // paths of libraries; empty: where the system finds them
  std::string openvino, tensorrt, plugins;
  std::string precision;             // of the plans, empty: of those built last; on a CPU fp32 or bf16, empty: fp32
  std::string cache;                 // folder for what OpenVINO compiles; empty: none
  std::optional<bool> graph;         // the whole image as one CUDA graph, or one a segment; none: what the driver can
  int threads = 0;                   // of the CPU; 0: all that the process may use
  int workers = 1;                   // images that are under way at a time
  bool skip_accuracy_check = false;  // bf16 on a CPU without Python's record of what it costs this bundle
  bool low_memory = false;           // no repacked copy of the weights, which is somewhat slower
  std::optional<Schedule> schedule;  // none: the backend's
  std::optional<std::vector<double>> thresholds;  // none: the bundle's own
};

// What runs a bundle. `provider` and `precision`: on a CPU; empty with plans.
struct Opened {
  std::unique_ptr<Executor> executor;
  std::string provider, precision;
};

enum class Mode { kWhole, kSlide };

// Where labels go that the caller has memory for.
struct LabelsPlace {
  void* data = nullptr;
  size_t stride = 0;  // bytes from one row to the next
  bool on_device = false;
};

struct RunOptions {
  std::optional<Mode> mode;                       // none: the bundle's
  std::optional<bool> keep_ratio;                 // of mode whole; none: the bundle's
  std::optional<Schedule> schedule;               // none: the session's
  std::optional<std::vector<double>> thresholds;  // none: the session's
  std::optional<std::vector<int64_t>> counts;
  bool return_logits = false;
  LabelsPlace labels;
  void* stream = nullptr;             // of the caller's, which device memory is used after
  std::shared_ptr<const void> ready;  // Frame::ready
};

class Session {
 public:
  // Opens the bundle in the folder `path`. Throws DovitError, UsageError or Unsupported.
  Session(const std::string& path, const LoadOptions& options);

  // A session over the caller's executor; the options for backends are ignored.
  Session(Bundle bundle, std::unique_ptr<Executor> executor, const LoadOptions& options);

  const Manifest& manifest() const { return bundle_->manifest; }
  const std::string& backend() const { return backend_; }
  const std::string& provider() const { return provider_; }    // cpu or openvino; empty with plans
  const std::string& precision() const { return precision_; }  // of the provider
  const std::vector<double>& thresholds() const { return thresholds_; }
  Schedule schedule() const { return schedule_; }
  std::shared_ptr<const DeviceMemory> device_memory() const { return executor_->device_memory(); }
  int label_bytes() const { return static_cast<int>(item_bytes(label_type(manifest()))); }
  Size window() const {
    return {static_cast<int>(manifest().image_size[0]), static_cast<int>(manifest().image_size[1])};
  }

  Mode mode(const RunOptions& options) const {
    return options.mode.value_or(manifest().mode == "slide" ? Mode::kSlide : Mode::kWhole);
  }
  bool keep_ratio(const RunOptions& options) const { return options.keep_ratio.value_or(manifest().keep_ratio); }

  // Whether a pass may be given images of this size as they are. Others are resized by the session, and labelled.
  bool accepts_size(Size size, const RunOptions& options) const {
    if (mode(options) == Mode::kSlide) return false;
    return size == window() || (!keep_ratio(options) && executor_->accepts_size(size));
  }

  // Checks the arguments of a pass; throws UsageError. A function of its own, so that enqueue fails at once.
  Request request(const RunOptions& options) const;

  Result run(const Pixels& image, const Request& request, const RunOptions& options) const;

 private:
  Result window_result(const Frame& frame, const Request& request) const;
  Result run_whole(const Pixels& image, const Request& request, const RunOptions& options) const;
  Result run_fitted(const Pixels& image, const Request& request, const RunOptions& options) const;
  Result run_slide(const Pixels& image, const Request& request, const RunOptions& options) const;
  LabelsPlace place_for(Result& result, Size size, const LabelsPlace& given) const;
  void hand_over(Result& result, const RunOptions& options) const;

  // The executor refers to the bundle's manifest.
  struct Loaded {
    std::unique_ptr<const Bundle> bundle;
    Opened opened;
  };
  static Loaded load(const std::string& path, const LoadOptions& options);
  Session(Loaded loaded, const LoadOptions& options);

  std::unique_ptr<const Bundle> bundle_;
  std::unique_ptr<Executor> executor_;
  std::string backend_, provider_, precision_;
  std::vector<double> thresholds_;
  Schedule schedule_;
};

}  // namespace dovit::runtime
