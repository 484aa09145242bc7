// DeviceBuffers: device memory that is taken for an operator or a step and given back, so that
// steps after the first allocate nothing. Buffers are reused in the order of one stream: what is
// given back may be taken at once by work queued later on the same stream, and no other.
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "kernels/cuda/device.h"

namespace kvasir::cuda {

class DeviceBuffers;

// Gives its memory back when it dies. Must not outlive its DeviceBuffers.
class Scratch {
 public:
  Scratch() = default;
  Scratch(DeviceBuffers* owner, void* data, size_t bytes)
      : owner_(owner), data_(data), bytes_(bytes) {}
  Scratch(Scratch&& other) noexcept
      : owner_(std::exchange(other.owner_, nullptr)), data_(other.data_), bytes_(other.bytes_) {}
  Scratch& operator=(Scratch&& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Scratch();

  template <typename T>
  T* As() const {
    return static_cast<T*>(data_);
  }

 private:
  DeviceBuffers* owner_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

class DeviceBuffers {
 public:
  DeviceBuffers() = default;
  ~DeviceBuffers();
  DeviceBuffers(const DeviceBuffers&) = delete;
  DeviceBuffers& operator=(const DeviceBuffers&) = delete;

  // At least `bytes`, aligned to 256.
  Result<Scratch> Take(size_t bytes);

 private:
  friend class Scratch;
  std::map<size_t, std::vector<void*>> free_;  // by size
};

}  // namespace kvasir::cuda
