#include "gpu/device.h"

#include "errors.h"

namespace dovit::runtime {

namespace {

constexpr int kSwitchCuda = 12080;  // the first driver that has SWITCH nodes

CUmemorytype kind(const Rows& rows) { return rows.on_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST; }

}  // namespace

DevicePtr Device::open(int number) { return DevicePtr(new Device(number)); }

Device::Device(int number) : name(text("GPU ", number)) {
  int count = 0;
  driver.check(driver.cuDeviceGetCount(&count), "no NVIDIA GPU was found");
  if (number < 0 || number >= count)
    throw DovitError(text("no NVIDIA GPU number ", number, " was found: this machine has ", count, ", from cuda:0"));
  check(driver.cuDeviceGet(&device_, number), "cuDeviceGet");
  char words[256] = "";
  check(driver.cuDeviceGetName(words, sizeof words, device_), "cuDeviceGetName");
  name = words;
  const auto attribute = [&](int& value, CUdevice_attribute which) {
    check(driver.cuDeviceGetAttribute(&value, which, device_), "cuDeviceGetAttribute");
  };
  attribute(capability_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  attribute(capability_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  check(driver.cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
}

Device::~Device() { driver.cuDevicePrimaryCtxRelease(device_); }

std::string Device::capability() const { return text(capability_major, ".", capability_minor); }

bool Device::can_switch() const {
#define X(name, since) &&driver.name
  return driver.version >= kSwitchCuda DOVIT_SWITCH_FUNCTIONS(X);
#undef X
}

size_t Device::free_bytes() const {
  size_t free = 0, total = 0;
  check(driver.cuMemGetInfo(&free, &total), "cuMemGetInfo");
  return free;
}

std::string mebibytes(size_t bytes) { return text((bytes + (size_t{1} << 20) - 1) >> 20, " MiB"); }

void Device::check(CUresult status, const char* function) const {
  if (status != CUDA_SUCCESS) driver.check(status, text(name, ": ", function, " failed"));
}

ContextGuard::ContextGuard(const Device& device) noexcept
    : device_(device), pushed_(device.driver.cuCtxPushCurrent(device.context()) == CUDA_SUCCESS) {}

ContextGuard::~ContextGuard() {
  CUcontext left = nullptr;
  if (pushed_) device_.driver.cuCtxPopCurrent(&left);
}

DeviceBuffer::DeviceBuffer(DevicePtr device, size_t bytes) : device_(std::move(device)) {
  const CUresult status = device_->driver.cuMemAlloc(&address_, bytes);
  device_->driver.check(
      status, status == CUDA_SUCCESS ? "" : text(device_->name, ": ", mebibytes(bytes), " cannot be allocated"));
}

DeviceBuffer::~DeviceBuffer() {
  const ContextGuard guard(*device_);
  device_->driver.cuMemFree(address_);
}

PinnedBuffer::PinnedBuffer(DevicePtr device, size_t bytes) : device_(std::move(device)), bytes_(bytes) {
  const CUresult status = device_->driver.cuMemHostAlloc(&data_, bytes, 0);
  device_->driver.check(status,
                        status == CUDA_SUCCESS ? "" : text(mebibytes(bytes), " of pinned memory cannot be allocated"));
}

PinnedBuffer::~PinnedBuffer() {
  const ContextGuard guard(*device_);
  device_->driver.cuMemFreeHost(data_);
}

Stream::Stream(DevicePtr device) : device_(std::move(device)) {
  device_->check(device_->driver.cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
}

Stream::~Stream() {
  const ContextGuard guard(*device_);
  device_->driver.cuStreamDestroy(stream_);
}

void Stream::wait() const { device_->check(device_->driver.cuStreamSynchronize(stream_), "cuStreamSynchronize"); }

Event::Event(DevicePtr device, CUstream stream) : device_(std::move(device)) {
  const ContextGuard guard(*device_);
  device_->check(device_->driver.cuEventCreate(&event_, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
  const CUresult status = device_->driver.cuEventRecord(event_, stream);
  if (status != CUDA_SUCCESS) device_->driver.cuEventDestroy(event_);
  device_->check(status, "cuEventRecord");
}

Event::~Event() {
  const ContextGuard guard(*device_);
  device_->driver.cuEventDestroy(event_);
}

void Event::make_wait(CUstream stream) const {
  device_->check(device_->driver.cuStreamWaitEvent(stream, event_, CU_EVENT_WAIT_DEFAULT), "cuStreamWaitEvent");
}

void copy(const Device& device, CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  device.check(device.driver.cuMemcpyAsync(to, from, bytes, stream), "cuMemcpyAsync");
}

void copy_rows(const Device& device, const Rows& to, const Rows& from, size_t bytes, size_t count, CUstream stream) {
  CUDA_MEMCPY2D request{};
  request.srcMemoryType = kind(from);
  request.srcHost = from.on_device ? nullptr : from.data;
  request.srcDevice = from.on_device ? host_address(from.data) : 0;
  request.srcPitch = from.stride;
  request.dstMemoryType = kind(to);
  request.dstHost = to.on_device ? nullptr : to.data;
  request.dstDevice = to.on_device ? host_address(to.data) : 0;
  request.dstPitch = to.stride;
  request.WidthInBytes = bytes;
  request.Height = count;
  device.check(device.driver.cuMemcpy2DAsync(&request, stream), "cuMemcpy2DAsync");
}

}  // namespace dovit::runtime
