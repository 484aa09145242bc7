// ByteWriter and ByteReader: little-endian fields in and out of byte strings. Private to cache/.
// The reader never reads past its end: after the first short read every value is 0 and ok() false.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace kvasir {

class ByteWriter {
 public:
  template <typename T>
  ByteWriter& Put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  ByteWriter& PutBytes(std::string_view bytes) {  // length-prefixed
    Put(static_cast<uint32_t>(bytes.size()));
    bytes_.append(bytes);
    return *this;
  }
  std::string Take() { return std::move(bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}
  template <typename T>
  T Get() {
    T value{};
    if (Have(sizeof value)) {
      std::memcpy(&value, rest_.data(), sizeof value);
      rest_.remove_prefix(sizeof value);
    }
    return value;
  }
  std::string_view GetBytes() {  // length-prefixed
    const auto size = Get<uint32_t>();
    if (!Have(size)) return {};
    const std::string_view bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return bytes;
  }
  bool Have(size_t size) {
    if (rest_.size() < size) ok_ = false;
    return ok_;
  }
  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

// Big-endian, so that keys sort by value.
template <typename T>
void AppendBigEndian(std::string& out, T value) {
  for (int shift = static_cast<int>(sizeof value) * 8 - 8; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>((value >> shift) & 0xff));
  }
}
template <typename T>
T ReadBigEndian(const char* bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof value; ++i) {
    value = static_cast<T>(value << 8) | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

}  // namespace kvasir
