// Digest128: a 128-bit XXH3 digest, and a builder that cannot be fooled by concatenation.
// Not cryptographic: where it stands for content, the content itself is compared as well.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kvasir {

struct Digest128 {
  uint64_t high = 0, low = 0;
  std::string Hex() const;    // 32 hex digits
  std::string Bytes() const;  // 16 bytes, big-endian
  static Digest128 FromBytes(const char* bytes);
  friend auto operator<=>(const Digest128&, const Digest128&) = default;
};

Digest128 DigestOf(std::string_view bytes);
uint64_t Digest64Of(std::string_view bytes);

// Collects named fields; each goes in as (name, type, length, bytes), so that no two different
// lists of fields give the same bytes. Value type, not thread-safe.
class DigestBuilder {
 public:
  explicit DigestBuilder(std::string_view domain) { Add("domain", domain); }
  DigestBuilder& Add(std::string_view name, std::string_view bytes);
  DigestBuilder& Add(std::string_view name, int64_t value);
  DigestBuilder& Add(std::string_view name, double value);  // by its bits
  DigestBuilder& Add(std::string_view name, std::span<const int32_t> values);
  Digest128 Finish() const { return DigestOf(bytes_); }

 private:
  void Field(char type, std::string_view name, std::string_view bytes);
  std::string bytes_;
};

}  // namespace kvasir
