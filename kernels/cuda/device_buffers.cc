#include "kernels/cuda/device_buffers.h"

#include <algorithm>
#include <bit>

namespace kvasir::cuda {

Scratch::~Scratch() {
  if (owner_ != nullptr) owner_->free_[bytes_].push_back(data_);
}

DeviceBuffers::~DeviceBuffers() {
  for (const auto& [bytes, buffers] : free_) {
    for (void* buffer : buffers) FreeDeviceMemory(buffer);
  }
}

Result<Scratch> DeviceBuffers::Take(size_t bytes) {
  // Sizes are powers of two, so that a buffer serves many steps.
  constexpr size_t kLeast = 4096;
  const size_t rounded = std::bit_ceil(std::max(bytes, kLeast));
  std::vector<void*>& free = free_[rounded];
  if (free.empty()) {
    KVASIR_ASSIGN_OR_RETURN(void* fresh, AllocateDeviceMemory(rounded));
    return Scratch(this, fresh, rounded);
  }
  void* const found = free.back();
  free.pop_back();
  return Scratch(this, found, rounded);
}

}  // namespace kvasir::cuda
