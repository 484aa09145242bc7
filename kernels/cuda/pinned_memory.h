// PinnedMemory: host memory that copies reach at full speed and beside other work; EventOwner: an
// event that is made when it is first needed. Not thread-safe.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <utility>

#include "kernels/cuda/device.h"

namespace kvasir::cuda {

class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(PinnedMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~PinnedMemory() { Free(); }

  // At least `bytes`, a power of two. What was in it is lost if it grows; no copy may use it then.
  Status Reserve(size_t bytes) {
    if (bytes <= bytes_) return Status::Ok();
    Free();
    const size_t rounded = std::bit_ceil(bytes);
    KVASIR_ASSIGN_OR_RETURN(void* data, AllocatePinnedMemory(rounded));
    data_ = static_cast<char*>(data);
    bytes_ = rounded;
    return Status::Ok();
  }
  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void Free() {
    if (data_ != nullptr) FreePinnedMemory(data_);
    data_ = nullptr;
    bytes_ = 0;
  }
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

class EventOwner {
 public:
  EventOwner() = default;
  EventOwner(EventOwner&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  EventOwner& operator=(EventOwner&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  ~EventOwner() {
    if (event_ != nullptr) DestroyEvent(event_);
  }

  Status Record(Stream stream) {
    if (event_ == nullptr) {
      KVASIR_ASSIGN_OR_RETURN(event_, CreateEvent());
    }
    return RecordEvent(event_, stream);
  }
  // The caller waits. Nothing was recorded: it does not.
  Status Await() const {
    if (event_ == nullptr) return Status::Ok();
    KVASIR_ASSIGN_OR_RETURN(const bool passed, HasPassed(event_));
    return passed ? Status::Ok() : AwaitEvent(event_);
  }
  Result<bool> Passed() const {
    if (event_ == nullptr) return true;
    return HasPassed(event_);
  }
  // What is queued on `stream` from now on waits.
  Status HoldBack(Stream stream) const {
    return event_ == nullptr ? Status::Ok() : WaitForEvent(stream, event_);
  }

 private:
  Event event_ = nullptr;
};

}  // namespace kvasir::cuda
