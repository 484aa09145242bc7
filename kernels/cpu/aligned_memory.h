// AlignedMemory: 64-byte aligned host memory for weights, activations and KV pools. Blocks of at
// least a huge page are mapped apart and offered huge pages, small ones come from the heap.
// Movable, not thread-safe; contents undefined until written.
#pragma once

#include <cstddef>
#include <utility>

#include "kernels/core/status.h"

namespace kvasir {

class AlignedMemory {
 public:
  AlignedMemory() = default;
  // kResourceExhausted if there is none. bytes == 0 gives an empty block.
  static Result<AlignedMemory> Allocate(size_t bytes);
  ~AlignedMemory() { Release(); }
  AlignedMemory(AlignedMemory&& other) noexcept { *this = std::move(other); }
  AlignedMemory& operator=(AlignedMemory&& other) noexcept;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* As() const {
    return static_cast<T*>(data_);
  }
  // Touches every page, so that no first use pays for page faults.
  void Prefault();

 private:
  void Release();

  void* data_ = nullptr;
  size_t bytes_ = 0;
  size_t mapped_bytes_ = 0;  // 0 = from the heap
};

}  // namespace kvasir
