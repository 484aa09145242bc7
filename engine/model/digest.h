// A fast 128-bit digest of bulk bytes, to tell model files apart.
//
// Not cryptographic: it guards against mix-ups and swapped files, not against an adversary who
// may write the operator's model folder. Reads about as fast as memory delivers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace kvasir {

struct FileDigest {
  uint64_t high = 0, low = 0;
  std::string Hex() const;  // 32 lower-case digits
  friend bool operator==(const FileDigest&, const FileDigest&) = default;
};

// The same bytes and seed give the same digest on every machine and in every later version.
FileDigest DigestOf(std::span<const std::byte> bytes, uint64_t seed = 0);

}  // namespace kvasir
