#include "tests/kernels/cuda_emulation/memory.h"

#include <sys/mman.h>

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
constexpr size_t kAddresses = size_t{1} << 42;

struct Buffer {
  size_t bytes;
  char* contents;
};

struct Registry {
  std::mutex mutex;
  std::map<const char*, Buffer> buffers;  // by begin
  char* next = nullptr;                   // of the addresses below
  char* end = nullptr;
  size_t used = 0;
  size_t limit = SIZE_MAX;
};

Registry& TheRegistry() {
  static Registry registry;
  return registry;
}

// Addresses that nothing is mapped at. Under the registry's lock.
char* TakeAddresses(Registry& registry, size_t bytes) {
  if (registry.next == nullptr) {
    void* const range =
        mmap(nullptr, kAddresses, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) Fault("no addresses for device memory");
    registry.next = static_cast<char*>(range);
    registry.end = registry.next + kAddresses;
  }
  if (bytes > static_cast<size_t>(registry.end - registry.next)) Fault("out of device addresses");
  char* const begin = registry.next;
  registry.next += bytes;
  return begin;
}

}  // namespace

void* AllocateDevice(size_t bytes) {
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  if (bytes > registry.limit - std::min(registry.limit, registry.used)) return nullptr;
  const size_t rounded = (bytes + kAlignment) / kAlignment * kAlignment;
  auto* const contents = static_cast<char*>(std::aligned_alloc(kAlignment, rounded));
  if (contents == nullptr) return nullptr;
  std::memset(contents, 0xFF, rounded);
  char* const begin = TakeAddresses(registry, rounded);
  registry.buffers[begin] = {bytes, contents};
  registry.used += bytes;
  return begin;
}

void FreeDevice(void* pointer) {
  if (pointer == nullptr) return;
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  const auto found = registry.buffers.find(static_cast<const char*>(pointer));
  if (found == registry.buffers.end()) Fault("free of %p, which is no buffer", pointer);
  registry.used -= found->second.bytes;
  std::free(found->second.contents);
  registry.buffers.erase(found);
}

bool IsDeviceMemory(const void* pointer) {
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  return registry.end != nullptr && pointer >= registry.end - kAddresses && pointer < registry.end;
}

Extent ExtentOf(const void* pointer) {
  if (pointer == nullptr) return {};
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  const auto* const address = static_cast<const char*>(pointer);
  auto found = registry.buffers.upper_bound(address);
  if (found == registry.buffers.begin()) Fault("%p is not device memory", pointer);
  --found;
  const Extent extent = {found->first, found->first + found->second.bytes, found->second.contents};
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
