// MappedFile: a file's bytes, mapped read-only.
//
// Move-only; immutable after Open and readable from any thread. Spans into it die with it. The
// file must not be cut short while it is mapped: reading past its new end is SIGBUS, so callers
// copy out what they keep and close.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "kernels/core/status.h"

namespace kvasir {

class MappedFile {
 public:
  // kNotFound: no such file; kInvalidArgument: a folder, a device, or empty.
  static Result<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(address_), size_};
  }
  const std::string& path() const { return path_; }

 private:
  MappedFile(void* address, size_t size, std::string path)
      : address_(address), size_(size), path_(std::move(path)) {}

  void* address_ = nullptr;
  size_t size_ = 0;
  std::string path_;
};

}  // namespace kvasir
