// ByteCursor: reads little-endian values out of a byte span and never past its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

namespace kvasir {

class ByteCursor {
 public:
  explicit ByteCursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  size_t position() const { return at_; }
  size_t remaining() const { return bytes_.size() - at_; }

  // nullopt, and no move, if too few bytes are left.
  template <typename T>
  std::optional<T> Read() {
    const auto raw = Take(sizeof(T));
    if (!raw) return std::nullopt;
    T value;
    std::memcpy(&value, raw->data(), sizeof value);
    return value;
  }

  std::optional<std::span<const std::byte>> Take(uint64_t count) {
    if (count > remaining()) return std::nullopt;
    const auto part = bytes_.subspan(at_, count);
    at_ += count;
    return part;
  }

  // A string of GGUF: u64 length, then bytes.
  std::optional<std::string_view> ReadString() {
    const size_t begin = at_;
    const auto length = Read<uint64_t>();
    const auto raw = length ? Take(*length) : std::nullopt;
    if (!raw) {
      at_ = begin;
      return std::nullopt;
    }
    return std::string_view(reinterpret_cast<const char*>(raw->data()), raw->size());
  }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

}  // namespace kvasir
