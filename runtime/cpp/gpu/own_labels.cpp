#include "gpu/own_labels.h"

#include <cstring>

#include "errors.h"

namespace dovit::runtime {

OwnLabels::OwnLabels(const Program& program)
    : program_(program), type_(label_type(program.manifest())), memory_(program.plans().device) {}

void OwnLabels::prepare(Size image) {
  image_ = image;
  memory_.reserve(bytes(), bytes(), text("labelling an image of ", image.height, "×", image.width));
}

size_t OwnLabels::bytes() const { return static_cast<size_t>(image_.height) * image_.width * item_bytes(type_); }

void OwnLabels::enqueue(CUstream stream) const {
  const TensorSpec& logits = program_.made("logits");
  const Shape shape = program_.full_shape(logits);  // [1, C, h, w]
  dovit_resized_labels_args call{};
  call.type = kernel_type(dtype_of(logits));
  call.logits = At{program_.place(logits.name)};
  call.labels = At{memory_.place()};
  call.batch = 1;
  call.classes = static_cast<int>(shape[1]);
  call.height = static_cast<int>(shape[2]);
  call.width = static_cast<int>(shape[3]);
  call.out_height = image_.height;
  call.out_width = image_.width;
  program_.plans().kernels.resized_labels(call, stream);
}

void OwnLabels::enqueue_download(CUstream stream) const {
  copy(program_.device(), address(memory_.pinned()), memory_.place(), bytes(), stream);
}

Tensor OwnLabels::read() const {
  Tensor labels = make_tensor(type_, {1, image_.height, image_.width});
  std::memcpy(labels.data, memory_.pinned(), bytes());
  return labels;
}

}  // namespace dovit::runtime
