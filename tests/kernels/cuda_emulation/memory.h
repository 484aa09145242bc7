// DeviceMemory: what an emulated card has allocated. A device address is never mapped: host code
// that reads or writes through it dies at once. What lies behind it is plain host memory elsewhere,
// which kernels (checked.h) and copies reach through the buffer's Extent. Buffers are 256-byte
// aligned as cudaMalloc's, filled with 0xFF bytes (NaN) when allocated; an address is used once.
// Thread-safe.
#pragma once

#include <cstddef>

namespace kvasir::emulation {

struct Extent {
  const char* begin = nullptr;  // device addresses
  const char* end = nullptr;
  char* contents = nullptr;  // of `begin`

  // Where the host finds `device`, an address in this buffer.
  char* Behind(const void* device) const {
    return contents + (static_cast<const char*>(device) - begin);
  }
};

void* AllocateDevice(size_t bytes);  // null if a test has limited memory and it does not suffice
void FreeDevice(void* pointer);
// The buffer that holds `pointer` (or ends there). A fault if there is none; null is an empty one.
Extent ExtentOf(const void* pointer);
bool IsDeviceMemory(const void* pointer);

// Bytes that may be allocated in all; for tests of error paths.
void LimitDeviceMemory(size_t bytes);
size_t DeviceBytesInUse();

}  // namespace kvasir::emulation
