// kernels/cuda/device.h on host memory.
#include "kernels/cuda/device.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tests/kernels/cuda_emulation/block.h"
#include "tests/kernels/cuda_emulation/device.h"
#include "tests/kernels/cuda_emulation/memory.h"
#include "tests/kernels/cuda_emulation/streams.h"

namespace kvasir::emulation {
namespace {

std::mutex mutex;
Status missing, lost, unrecorded;
uint64_t frees = 0;
DeviceCalls calls;
std::map<const char*, size_t> pinned;  // by begin

void Count(size_t DeviceCalls::*what) {
  const std::lock_guard lock(mutex);
  ++(calls.*what);
}

bool IsPinned(const void* pointer, size_t bytes) {
  const std::lock_guard lock(mutex);
  const auto* const address = static_cast<const char*>(pointer);
  auto found = pinned.upper_bound(address);
  if (found == pinned.begin()) return false;
  --found;
  return address + bytes <= found->first + found->second;
}

// Host memory of a copy.
bool CheckPinned(const void* host, size_t bytes) {
  if (IsPinned(host, bytes)) return true;
  Count(&DeviceCalls::unpinned);
  return false;
}

}  // namespace

DeviceCalls CallsSoFar() {
  const std::lock_guard lock(mutex);
  return calls;
}

void CountTrial() { Count(&DeviceCalls::trials); }

void MissDevice(Status why) {
  const std::lock_guard lock(mutex);
  missing = std::move(why);
}
void FailRecording(Status why) {
  const std::lock_guard lock(mutex);
  unrecorded = std::move(why);
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

// Where the host finds `bytes` bytes of the card, which must lie in one buffer.
char* Behind(const void* device, size_t bytes) {
  const emulation::Extent extent = emulation::ExtentOf(device);
  if (static_cast<const char*>(device) + bytes > extent.end) {
    emulation::Fault("copy of %zu bytes out of bounds", bytes);
  }
  return extent.Behind(device);
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
  emulation::Count(&emulation::DeviceCalls::allocations);
  void* const memory = emulation::AllocateDevice(bytes);
  if (memory == nullptr) {
    return ResourceExhausted("no device memory for " + std::to_string(bytes) + " bytes");
  }
  return memory;
}
uint64_t DeviceMemoryFrees() {
  const std::lock_guard lock(emulation::mutex);
  return emulation::frees;
}
void FreeDeviceMemory(void* pointer) {
  if (pointer == nullptr) return;
  {
    const std::lock_guard lock(emulation::mutex);
    ++emulation::frees;
  }
  emulation::RunAllStreams();
  emulation::FreeDevice(pointer);
}

Result<void*> AllocatePinnedMemory(size_t bytes) {
  KVASIR_RETURN_IF_ERROR(State());
  emulation::Count(&emulation::DeviceCalls::allocations);
  void* const memory = std::malloc(bytes);
  const std::lock_guard lock(emulation::mutex);
  emulation::pinned[static_cast<const char*>(memory)] = bytes;
  return memory;
}
void FreePinnedMemory(void* pointer) {
  emulation::RunAllStreams();
  const std::lock_guard lock(emulation::mutex);
  emulation::pinned.erase(static_cast<const char*>(pointer));
  std::free(pointer);
}

Result<Stream> CreateStream(bool) {
  KVASIR_RETURN_IF_ERROR(State());
  return emulation::OpenStream();
}
void DestroyStream(Stream stream) { emulation::CloseStream(stream); }

Result<Event> CreateEvent() {
  KVASIR_RETURN_IF_ERROR(State());
  return emulation::OpenEvent();
}
void DestroyEvent(Event event) { emulation::CloseEvent(event); }
Status RecordEvent(Event event, Stream stream) {
  KVASIR_RETURN_IF_ERROR(State());
  emulation::RecordOn(event, stream);
  return Status::Ok();
}
Status WaitForEvent(Stream stream, Event event) {
  KVASIR_RETURN_IF_ERROR(State());
  emulation::QueueWait(stream, event);
  return Status::Ok();
}
Status AwaitEvent(Event event) {
  if (!emulation::HasRun(event)) emulation::Count(&emulation::DeviceCalls::waits);
  emulation::RunUntil(event);
  return State();
}
Result<bool> HasPassed(Event event) {
  KVASIR_RETURN_IF_ERROR(State());
  return emulation::HasRun(event);
}

Status BeginRecording(Stream stream, bool overlapped) {
  KVASIR_RETURN_IF_ERROR(State());
  if (overlapped) emulation::Count(&emulation::DeviceCalls::overlapped);
  emulation::Count(&emulation::DeviceCalls::recordings);
  emulation::BeginRecording(stream);
  return Status::Ok();
}
Result<Graph> EndRecording(Stream stream) {
  auto work = std::make_unique<emulation::RecordedWork>(emulation::EndRecording(stream));
  KVASIR_RETURN_IF_ERROR(State());
  const std::lock_guard lock(emulation::mutex);
  KVASIR_RETURN_IF_ERROR(emulation::unrecorded);
  return Graph{work.release()};
}
Status LaunchGraph(Graph graph, Stream stream) {
  KVASIR_RETURN_IF_ERROR(State());
  emulation::Count(&emulation::DeviceCalls::graphs);
  for (const auto& work : *static_cast<emulation::RecordedWork*>(graph)) {
    emulation::QueueWork(stream, work);
  }
  return Status::Ok();
}
void DestroyGraph(Graph graph) {
  emulation::RunAllStreams();
  delete static_cast<emulation::RecordedWork*>(graph);
}

Status CopyToDevice(void* device, const void* host, size_t bytes, Stream stream) {
  KVASIR_RETURN_IF_ERROR(State());
  if (bytes == 0) return Status::Ok();
  char* const to = Behind(device, bytes);
  emulation::Count(&emulation::DeviceCalls::uploads);
  if (emulation::CheckPinned(host, bytes)) {
    emulation::QueueWork(stream, [=] { std::memcpy(to, host, bytes); });
    return Status::Ok();
  }
  if (emulation::IsRecording(stream)) emulation::Fault("a copy that cannot be recorded");
  const auto* const from = static_cast<const char*>(host);
  emulation::QueueWork(stream, [to, copy = std::vector<char>(from, from + bytes)] {
    std::memcpy(to, copy.data(), copy.size());
  });
  return Status::Ok();
}

Status CopyToHost(void* host, const void* device, size_t bytes, Stream stream) {
  KVASIR_RETURN_IF_ERROR(State());
  if (bytes == 0) return Status::Ok();
  const char* const from = Behind(device, bytes);
  emulation::CheckPinned(host, bytes);
  emulation::QueueWork(stream, [=] { std::memcpy(host, from, bytes); });
  return Status::Ok();
}

Status CopyRuns(void* to, const void* from, const Runs& runs, Stream stream) {
  KVASIR_RETURN_IF_ERROR(State());
  if (runs.rows == 0) return Status::Ok();
  const char* const source = Behind(from, (runs.rows - 1) * runs.from_stride + runs.width);
  char* const target = emulation::IsDeviceMemory(to)
                           ? Behind(to, (runs.rows - 1) * runs.to_stride + runs.width)
                           : static_cast<char*>(to);
  emulation::QueueWork(stream, [=] {
    for (size_t row = 0; row < runs.rows; ++row) {
      std::memcpy(target + row * runs.to_stride, source + row * runs.from_stride, runs.width);
    }
  });
  return Status::Ok();
}

Status Synchronize(Stream stream) {
  emulation::Count(&emulation::DeviceCalls::waits);
  emulation::RunQueued(stream);
  return State();
}

}  // namespace kvasir::cuda
