// kernels/cuda/device.h on host memory: everything queued is done at once.
#include "kernels/cuda/device.h"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>

#include "tests/kernels/cuda_emulation/block.h"
#include "tests/kernels/cuda_emulation/device.h"
#include "tests/kernels/cuda_emulation/memory.h"

namespace kvasir::emulation {
namespace {

std::mutex mutex;
Status missing, lost;

}  // namespace

void MissDevice(Status why) {
  const std::lock_guard lock(mutex);
  missing = std::move(why);
}
void LoseDevice(Status why) {
  const std::lock_guard lock(mutex);
  lost = std::move(why);
}

}  // namespace kvasir::emulation

namespace kvasir::cuda {
namespace {

Status State() {
  const std::lock_guard lock(emulation::mutex);
  return emulation::lost;
}

// A copy's end on the card must lie in one buffer.
void CheckExtent(const void* device, size_t bytes) {
  const emulation::Extent extent = emulation::ExtentOf(device);
  if (static_cast<const char*>(device) + bytes > extent.end) {
    emulation::Fault("copy of %zu bytes out of bounds", bytes);
  }
}

}  // namespace

Result<DeviceInfo> OpenDevice() {
  const std::lock_guard lock(emulation::mutex);
  if (!emulation::missing.ok()) return emulation::missing;
  // Few processors, so that small tests have both split and whole tiles.
  return DeviceInfo{"emulated", 90, 4, size_t{1} << 30, 227 * 1024};
}

Result<void*> AllocateDeviceMemory(size_t bytes) {
  KVASIR_RETURN_IF_ERROR(State());
  void* const memory = emulation::AllocateDevice(bytes);
  if (memory == nullptr) {
    return ResourceExhausted("no device memory for " + std::to_string(bytes) + " bytes");
  }
  return memory;
}
void FreeDeviceMemory(void* pointer) { emulation::FreeDevice(pointer); }

Result<void*> AllocatePinnedMemory(size_t bytes) {
  KVASIR_RETURN_IF_ERROR(State());
  return std::malloc(bytes);
}
void FreePinnedMemory(void* pointer) { std::free(pointer); }

Result<Stream> CreateStream(bool) {
  KVASIR_RETURN_IF_ERROR(State());
  return Stream{nullptr};
}
void DestroyStream(Stream) {}

Status CopyToDevice(void* device, const void* host, size_t bytes, Stream) {
  KVASIR_RETURN_IF_ERROR(State());
  if (bytes == 0) return Status::Ok();
  CheckExtent(device, bytes);
  std::memcpy(device, host, bytes);
  return Status::Ok();
}

Status CopyToHost(void* host, const void* device, size_t bytes, Stream) {
  KVASIR_RETURN_IF_ERROR(State());
  if (bytes == 0) return Status::Ok();
  CheckExtent(device, bytes);
  std::memcpy(host, device, bytes);
  return Status::Ok();
}

Status CopyRuns(void* to, const void* from, const Runs& runs, Stream) {
  KVASIR_RETURN_IF_ERROR(State());
  if (runs.rows == 0) return Status::Ok();
  CheckExtent(from, (runs.rows - 1) * runs.from_stride + runs.width);
  for (size_t row = 0; row < runs.rows; ++row) {
    std::memcpy(static_cast<char*>(to) + row * runs.to_stride,
                static_cast<const char*>(from) + row * runs.from_stride, runs.width);
  }
  return Status::Ok();
}

Status Synchronize(Stream) { return State(); }

}  // namespace kvasir::cuda
