// Global<T> and Shared<T> in the emulation: pointers that check every access. A Global stays
// within the buffer in which it began, and is used when earlier kernels are done; a Shared goes
// through Block::Touch. In CUDA both are T*.
#pragma once

#include <cstring>
#include <type_traits>

#include "tests/kernels/cuda_emulation/block.h"
#include "tests/kernels/cuda_emulation/memory.h"

namespace kvasir::cuda {

template <typename T>
class Global {
 public:
  Global() = default;
  Global(T* pointer)  // NOLINT(google-explicit-constructor): as T* in CUDA
      : pointer_(pointer), extent_(emulation::ExtentOf(pointer)) {}
  Global(T* pointer, const emulation::Extent& extent) : pointer_(pointer), extent_(extent) {}
  Global(std::nullptr_t) {}  // NOLINT(google-explicit-constructor)
  template <typename U>
  requires std::is_same_v<const U, T> Global(
      const Global<U>& other)  // NOLINT(google-explicit-constructor)
      : pointer_(other.raw()), extent_(other.extent()) {}

  T& operator[](int64_t index) const { return *Checked(pointer_ + index, sizeof(T), alignof(T)); }
  T& operator*() const { return (*this)[0]; }
  Global operator+(int64_t offset) const { return {pointer_ + offset, extent_}; }
  Global& operator+=(int64_t offset) {
    pointer_ += offset;
    return *this;
  }
  explicit operator bool() const { return pointer_ != nullptr; }
  friend bool operator==(const Global& a, std::nullptr_t) { return a.pointer_ == nullptr; }

  T* raw() const { return pointer_; }
  const emulation::Extent& extent() const { return extent_; }
  // What lies behind `pointer` if `bytes` bytes there are in the buffer and it is aligned, for
  // accesses that come after earlier kernels'.
  template <typename U>
  U* Checked(U* pointer, size_t bytes, size_t alignment) const {
    emulation::Block::CheckAwaited();
    return CheckedConstant(pointer, bytes, alignment);
  }
  // The same of what no kernel writes.
  template <typename U>
  U* CheckedConstant(U* pointer, size_t bytes, size_t alignment) const {
    const auto* const begin = reinterpret_cast<const char*>(pointer);
    if (begin < extent_.begin || begin + bytes > extent_.end) {
      emulation::Fault("access out of bounds: %zu bytes at %td of a buffer of %td", bytes,
                       begin - extent_.begin, extent_.end - extent_.begin);
    }
    if (reinterpret_cast<uintptr_t>(begin) % alignment != 0) {
      emulation::Fault("access of %zu bytes at %td is not aligned", bytes, begin - extent_.begin);
    }
    using Behind = std::conditional_t<std::is_const_v<U>, const char*, char*>;
    return reinterpret_cast<U*>(static_cast<Behind>(extent_.Behind(begin)));
  }

 private:
  T* pointer_ = nullptr;
  emulation::Extent extent_;
};

// What reads and writes one value of shared memory.
template <typename T>
class SharedValue {
 public:
  explicit SharedValue(T* at) : at_(at) {}
  operator T() const {  // NOLINT(google-explicit-constructor): as T& in CUDA
    Touch(false);
    return *at_;
  }
  void operator=(const T& value) const {
    Touch(true);
    *at_ = value;
  }
  void operator=(const SharedValue& other) const { *this = static_cast<T>(other); }

 private:
  void Touch(bool write) const {
    emulation::Block::Current()->Touch(reinterpret_cast<const std::byte*>(at_), sizeof(T), write);
  }
  T* at_;
};

template <typename T>
class Shared {
 public:
  Shared() = default;
  explicit Shared(T* pointer) : pointer_(pointer) {}
  SharedValue<T> operator[](int64_t index) const { return SharedValue<T>(pointer_ + index); }
  Shared operator+(int64_t offset) const { return Shared(pointer_ + offset); }
  T* raw() const { return pointer_; }

 private:
  T* pointer_ = nullptr;
};

}  // namespace kvasir::cuda
