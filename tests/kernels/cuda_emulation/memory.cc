#include "tests/kernels/cuda_emulation/memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "tests/kernels/cuda_emulation/block.h"

namespace kvasir::emulation {
namespace {

constexpr size_t kAlignment = 256;

struct Registry {
  std::mutex mutex;
  std::map<const char*, size_t> buffers;  // by begin
  size_t used = 0;
  size_t limit = SIZE_MAX;
};

Registry& TheRegistry() {
  static Registry registry;
  return registry;
}

}  // namespace

void* AllocateDevice(size_t bytes) {
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  if (bytes > registry.limit - std::min(registry.limit, registry.used)) return nullptr;
  const size_t rounded = (bytes + kAlignment) / kAlignment * kAlignment;
  void* const memory = std::aligned_alloc(kAlignment, rounded);
  if (memory == nullptr) return nullptr;
  std::memset(memory, 0xFF, rounded);
  registry.buffers[static_cast<const char*>(memory)] = bytes;
  registry.used += bytes;
  return memory;
}

void FreeDevice(void* pointer) {
  if (pointer == nullptr) return;
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  const auto found = registry.buffers.find(static_cast<const char*>(pointer));
  if (found == registry.buffers.end()) Fault("free of %p, which is no buffer", pointer);
  registry.used -= found->second;
  registry.buffers.erase(found);
  std::free(pointer);
}

Extent ExtentOf(const void* pointer) {
  if (pointer == nullptr) return {};
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  const auto* const address = static_cast<const char*>(pointer);
  auto found = registry.buffers.upper_bound(address);
  if (found == registry.buffers.begin()) Fault("%p is not device memory", pointer);
  --found;
  const Extent extent = {found->first, found->first + found->second};
  if (address > extent.end) Fault("%p is not device memory", pointer);
  return extent;
}

void LimitDeviceMemory(size_t bytes) {
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  registry.limit = bytes;
}

size_t DeviceBytesInUse() {
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  return registry.used;
}

}  // namespace kvasir::emulation
