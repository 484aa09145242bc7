// How a program that has loaded the emulated card as a library breaks it (device.h, memory.h).
#include <cstddef>
#include <cstdint>

#include "tests/kernels/cuda_emulation/device.h"
#include "tests/kernels/cuda_emulation/memory.h"

#define KVASIR_EXPORT extern "C" __attribute__((visibility("default")))

KVASIR_EXPORT void kvasir_emulation_miss(const kvasir::Status* why) {
  kvasir::emulation::MissDevice(*why);
}
KVASIR_EXPORT void kvasir_emulation_lose(const kvasir::Status* why) {
  kvasir::emulation::LoseDevice(*why);
}
// Bytes beyond those in use.
KVASIR_EXPORT void kvasir_emulation_limit(size_t bytes) {
  const size_t used = kvasir::emulation::DeviceBytesInUse();
  kvasir::emulation::LimitDeviceMemory(bytes > SIZE_MAX - used ? SIZE_MAX : used + bytes);
}
