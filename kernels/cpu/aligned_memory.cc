#include "kernels/cpu/aligned_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <limits>
#include <string>

namespace kvasir {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// Maps one huge page more than asked and gives the unaligned ends back.
void* MapAligned(size_t bytes) {
  const size_t span = bytes + kHugePage;
  void* raw = mmap(nullptr, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(raw);
  const size_t head =
      RoundUp(reinterpret_cast<size_t>(begin), kHugePage) - reinterpret_cast<size_t>(begin);
  if (head > 0) munmap(begin, head);
  if (head < kHugePage) munmap(begin + head + bytes, kHugePage - head);
  madvise(begin + head, bytes, MADV_HUGEPAGE);  // a hint: failure costs speed alone
  return begin + head;
}

}  // namespace

Result<AlignedMemory> AlignedMemory::Allocate(size_t bytes) {
  AlignedMemory memory;
  if (bytes == 0) return memory;
  if (bytes <= std::numeric_limits<size_t>::max() / 2) {
    if (bytes >= kHugePage) {
      memory.mapped_bytes_ = RoundUp(bytes, 4096);
      memory.data_ = MapAligned(memory.mapped_bytes_);
    } else {
      memory.data_ = std::aligned_alloc(kAlignment, RoundUp(bytes, kAlignment));
    }
  }
  if (memory.data_ == nullptr) {
    return ResourceExhausted("cannot allocate " + std::to_string(bytes) + " bytes of memory");
  }
  memory.bytes_ = bytes;
  return memory;
}

AlignedMemory& AlignedMemory::operator=(AlignedMemory&& other) noexcept {
  if (this == &other) return *this;
  Release();
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  mapped_bytes_ = std::exchange(other.mapped_bytes_, 0);
  return *this;
}

void AlignedMemory::Prefault() {
  volatile char* const bytes = static_cast<volatile char*>(data_);
  for (size_t i = 0; i < bytes_; i += 4096) bytes[i] = 0;
}

void AlignedMemory::Release() {
  if (data_ == nullptr) return;
  if (mapped_bytes_ > 0) {
    munmap(data_, mapped_bytes_);
  } else {
    std::free(data_);
  }
  data_ = nullptr;
}

}  // namespace kvasir
