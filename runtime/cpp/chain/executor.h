// What runs a whole pass, from the pixels of one window to its logits: the chain of engines, and on a GPU one whose
// decisions are taken there.
#pragma once

#include <optional>

#include "chain/device_memory.h"
#include "chain/tensor.h"
#include "image/pixels.h"

namespace dovit::runtime {

enum class Schedule { kExact, kBucketed, kRounded };

// Kept counts of kRounded are multiples of this, and N. runtime/bundle/manifest.py has the same.
constexpr int64_t kRoundedTo = 16;

// How many tokens each decision keeps, and which outputs are wanted besides the labels.
struct Request {
  std::vector<double> thresholds;  // ξ, one a decision
  Schedule schedule = Schedule::kExact;
  std::optional<std::vector<int64_t>> counts;  // so many instead, those of lowest confidence
  bool logits = true;
};

// The pixels of a pass, [H, W, 3] uint8 of a size that the executor takes, and where its labels go besides.
struct Frame {
  const uint8_t* pixels = nullptr;
  Size size{};
  size_t device_stride = 0;  // of pixels in device memory: bytes from one row to the next; 0: of the host's
  std::shared_ptr<const void>
      ready{};                    // DeviceMemory::after(): when the pixels are there, and the labels' place is free
  void* device_labels = nullptr;  // memory of the caller's on the device; null: none
  size_t device_labels_stride = 0;
};

// The inputs and the outcome of one decision.
struct DecisionResult {
  std::vector<float> confidence;  // [M]
  std::vector<int32_t> index;     // [M]: positions of the M tokens
  std::vector<int32_t> keep;      // [K]: which of the M stay
};

// The result of a pass. There are fewer than D decisions where one has kept no token.
struct Pass {
  Tensor labels;  // [1, H, W] of the frame's size; may be empty where the frame says where they go
  Tensor logits;  // [1, C, h', w'] float32
  std::vector<DecisionResult> decisions;
};

class Executor {
 public:
  virtual ~Executor() = default;

  // One pass. Calls from several threads at a time are allowed. Throws DovitError.
  virtual Pass run(const Frame& frame, const Request& request) const = 0;

  // Whether frames of another size than the bundle's are taken as well.
  virtual bool accepts_size(Size) const { return false; }

  // The schedule of a session that names none.
  virtual Schedule default_schedule() const { return Schedule::kExact; }

  // Copies from and to callers' device memory; null where the executor works on the host.
  virtual std::shared_ptr<const DeviceMemory> device_memory() const { return nullptr; }
};

}  // namespace dovit::runtime
