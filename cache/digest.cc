#include "cache/digest.h"

#include <xxhash.h>

#include <bit>

#include "cache/byte_io.h"

namespace kvasir {

std::string Digest128::Bytes() const {
  std::string out;
  AppendBigEndian(out, high);
  AppendBigEndian(out, low);
  return out;
}

Digest128 Digest128::FromBytes(const char* bytes) {
  return {ReadBigEndian<uint64_t>(bytes), ReadBigEndian<uint64_t>(bytes + 8)};
}

std::string Digest128::Hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char byte : Bytes()) {
    out.push_back(kDigits[(byte >> 4) & 15]);
    out.push_back(kDigits[byte & 15]);
  }
  return out;
}

Digest128 DigestOf(std::string_view bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64};
}

uint64_t Digest64Of(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

void DigestBuilder::Field(char type, std::string_view name, std::string_view bytes) {
  ByteWriter field;
  field.PutBytes(name).Put(type).Put(static_cast<uint64_t>(bytes.size()));
  bytes_ += field.bytes();
  bytes_ += bytes;
}

DigestBuilder& DigestBuilder::Add(std::string_view name, std::string_view bytes) {
  Field('s', name, bytes);
  return *this;
}

DigestBuilder& DigestBuilder::Add(std::string_view name, int64_t value) {
  Field('i', name, {reinterpret_cast<const char*>(&value), sizeof value});
  return *this;
}

DigestBuilder& DigestBuilder::Add(std::string_view name, double value) {
  const auto bits = std::bit_cast<uint64_t>(value);
  Field('d', name, {reinterpret_cast<const char*>(&bits), sizeof bits});
  return *this;
}

DigestBuilder& DigestBuilder::Add(std::string_view name, std::span<const int32_t> values) {
  Field('v', name, {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  return *this;
}

}  // namespace kvasir
