#include "gpu/resizing.h"

#include <algorithm>
#include <cstring>

#include "errors.h"
#include "resize_taps.h"

namespace dovit::runtime {

namespace {

// The weights of one direction as the kernel reads them.
std::vector<int> table(const ResizeTaps& taps) {
  std::vector<int> all(taps.first);
  all.insert(all.end(), taps.count.begin(), taps.count.end());
  all.insert(all.end(), taps.weights.begin(), taps.weights.end());
  return all;
}

size_t bytes(const std::vector<int>& table) { return table.size() * sizeof(int); }

// The next multiple of what addresses on the device are aligned to.
size_t aligned(size_t bytes) {
  constexpr size_t kAlignment = 256;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

void StagingBuffers::reserve(size_t pinned, size_t on_device, const std::string& what) {
  if (!pinned_ || pinned_->bytes() < pinned) {
    pinned_.reset();  // before as much again is taken
    pinned_ = std::make_unique<PinnedBuffer>(device_, pinned);
  }
  if (device_bytes_ >= on_device) return;
  memory_.reset();
  device_bytes_ = 0;
  const size_t free = device_->free_bytes();
  if (on_device > free)
    throw DovitError(text(what, " needs ", mebibytes(on_device), " on ", device_->name, ", of which ", mebibytes(free),
                          " are free: give a smaller image, or use mode slide"));
  memory_ = std::make_unique<DeviceBuffer>(device_, on_device);
  device_bytes_ = on_device;
}

ImageResizer::ImageResizer(DevicePtr device, const Kernels& kernels, Size size)
    : device_(device), kernels_(kernels), size_(size), buffers_(std::move(device)) {}

void ImageResizer::prepare(Size image) {
  if (image == image_) return;  // a camera's are all of one
  image_ = {};
  const ResizeTaps taps_across = resize_taps(image.width, size_.width);
  const ResizeTaps taps_down = resize_taps(image.height, size_.height);
  const std::vector<int> across = table(taps_across), down = table(taps_down);
  const auto height = static_cast<size_t>(image.height), width = static_cast<size_t>(image.width);
  down_ = aligned(bytes(across));
  pixels_ = aligned(down_ + bytes(down));
  scratch_ = aligned(pixels_ + height * width * 3);
  const size_t between = 3 * std::max(height * size_.width, width * size_.height);  // resized in one direction
  buffers_.reserve(scratch_, scratch_ + between, text("resizing an image of ", image.height, "×", image.width));
  std::memcpy(buffers_.pinned(), across.data(), bytes(across));
  std::memcpy(buffers_.pinned() + down_, down.data(), bytes(down));
  across_width_ = taps_across.width;
  down_width_ = taps_down.width;
  image_ = image;
}

void ImageResizer::enqueue(const Frame& frame, CUdeviceptr out, CUstream stream) const {
  const auto height = static_cast<size_t>(image_.height), row = static_cast<size_t>(image_.width) * 3;
  const CUdeviceptr uploaded = buffers_.address();
  if (frame.device_stride) {
    copy(*device_, uploaded, host_address(buffers_.pinned()), pixels_, stream);
    copy_rows(*device_, {reinterpret_cast<void*>(uploaded + pixels_), row, true},
              {const_cast<uint8_t*>(frame.pixels), frame.device_stride, true}, row, height, stream);
  } else {
    std::memcpy(buffers_.pinned() + pixels_, frame.pixels, height * row);
    copy(*device_, uploaded, host_address(buffers_.pinned()), pixels_ + height * row, stream);
  }
  dovit_resize_args call{};
  call.image = DevicePointer{uploaded + pixels_};
  call.height = image_.height;
  call.width = image_.width;
  call.out = DevicePointer{out};
  call.out_height = size_.height;
  call.out_width = size_.width;
  call.across = DevicePointer{uploaded};
  call.across_width = across_width_;
  call.down = DevicePointer{uploaded + down_};
  call.down_width = down_width_;
  call.scratch = DevicePointer{uploaded + scratch_};
  kernels_.resize(call, stream);
}

ResizedLabels::ResizedLabels(const LoadedProgram& program)
    : program_(program), type_(label_type(program.manifest())), buffers_(program.plans().device) {}

void ResizedLabels::prepare(Size image) {
  image_ = image;
  buffers_.reserve(bytes(), bytes(), text("labelling an image of ", image.height, "×", image.width));
}

size_t ResizedLabels::bytes() const { return static_cast<size_t>(image_.height) * image_.width * item_bytes(type_); }

void ResizedLabels::enqueue(CUstream stream) const {
  const ArenaTensor& logits = program_.program().tensor("logits");  // [1, C, h, w]
  dovit_resized_labels_args call{};
  call.type = DOVIT_FLOAT32;
  call.logits = DevicePointer{program_.address(logits.name)};
  call.labels = DevicePointer{buffers_.address()};
  call.batch = 1;
  call.classes = static_cast<int>(logits.shape[1]);
  call.height = static_cast<int>(logits.shape[2]);
  call.width = static_cast<int>(logits.shape[3]);
  call.out_height = image_.height;
  call.out_width = image_.width;
  program_.plans().kernels.resized_labels(call, stream);
}

void ResizedLabels::enqueue_download(CUstream stream) const {
  copy(program_.device(), host_address(buffers_.pinned()), buffers_.address(), bytes(), stream);
}

Tensor ResizedLabels::read() const {
  Tensor labels = make_tensor(type_, {1, image_.height, image_.width});
  std::memcpy(labels.data, buffers_.pinned(), bytes());
  return labels;
}

}  // namespace dovit::runtime
