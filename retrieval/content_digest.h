// ContentDigest: SHA-256 over a list of strings, so that unchanged documents are recognised.
// Thread safety: free functions without state.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace kvasir {

std::array<uint8_t, 32> Sha256(std::string_view bytes);

// 64 hex digits over the parts, each preceded by its length: {"ab","c"} differs from {"a","bc"}.
std::string ContentDigest(std::initializer_list<std::string_view> parts);

}  // namespace kvasir
