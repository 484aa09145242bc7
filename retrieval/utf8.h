// Small UTF-8 helpers. Thread safety: free functions without state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kvasir {

// Byte offset of the first ill-formed sequence (overlong, surrogate, beyond U+10FFFF, cut off), or
// nullopt if there is none.
std::optional<size_t> FirstInvalidUtf8(std::string_view text);

void AppendUtf8(uint32_t code_point, std::string* out);  // <= 0x10FFFF, no surrogate

inline bool IsUtf8Continuation(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

}  // namespace kvasir
