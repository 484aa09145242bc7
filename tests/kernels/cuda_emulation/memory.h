// DeviceMemory: what an emulated card has allocated. Buffers are plain host memory, 256-byte
// aligned as cudaMalloc's, filled with 0xFF bytes (NaN) when allocated. Thread-safe.
#pragma once

#include <cstddef>

namespace kvasir::emulation {

struct Extent {
  const char* begin = nullptr;
  const char* end = nullptr;
};

void* AllocateDevice(size_t bytes);  // null if a test has limited memory and it does not suffice
void FreeDevice(void* pointer);
// The buffer that holds `pointer` (or ends there). A fault if there is none; null is an empty one.
Extent ExtentOf(const void* pointer);

// Bytes that may be allocated in all; for tests of error paths.
void LimitDeviceMemory(size_t bytes);
size_t DeviceBytesInUse();

}  // namespace kvasir::emulation
