// What runs a whole pass, from the pixels of one window to its logits. The chain of engines is one; a pass that stays
// on a GPU, with its decisions taken there, will be another.
#pragma once

#include <optional>

#include "chain/tensor.h"

namespace dovit::runtime {

enum class Schedule { kExact, kBucketed };

// How many tokens each decision keeps.
struct Request {
  std::vector<double> thresholds;  // ξ, one a decision
  Schedule schedule = Schedule::kExact;
  std::optional<std::vector<int64_t>> counts;  // so many instead, those of lowest confidence
};

// What one decision saw and said.
struct Decided {
  std::vector<float> confidence;  // [M]
  std::vector<int32_t> index;     // [M]: positions of the M tokens
  std::vector<int32_t> keep;      // [K]: which of the M stay
};

// What a pass leaves: decisions may be fewer than D where no token was left.
struct Pass {
  Tensor labels;  // [1, H, W]
  Tensor logits;  // [1, C, h', w'] float32
  std::vector<Decided> decisions;
};

class Executor {
 public:
  virtual ~Executor() = default;

  // One pass over `pixels` [H, W, 3] uint8 of the bundle's size. Calls from several threads at a time are allowed.
  // Throws DovitError.
  virtual Pass run(const uint8_t* pixels, const Request& request) const = 0;
};

}  // namespace dovit::runtime
