// UTF-8: strict validation, decoding of text known to be valid, encoding.
//
// Pure functions; thread-safe. "Valid" is RFC 3629: no overlong forms, no surrogates, at most
// U+10FFFF. U+0000 is an ordinary character.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/core/status.h"

namespace kvasir {

// The byte offset of the first ill-formed sequence; text.size() if there is none.
size_t FindInvalidUtf8(std::string_view text);

// kInvalidArgument naming `what` and the byte offset, or Ok.
Status CheckUtf8(std::string_view text, std::string_view what);

// Bytes of the character that begins with `lead`, which must be a lead byte of valid text.
inline size_t Utf8Length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The character at text[*offset] of *valid* text; moves *offset behind it.
char32_t NextCodePoint(std::string_view text, size_t* offset);

void AppendUtf8(char32_t code_point, std::string* out);

// Characters (not bytes) of valid text.
size_t CountCodePoints(std::string_view text);

// Unicode's White_Space property, and U+001C..U+001F, which Python's str.strip() takes as well.
bool IsSpace(char32_t code_point);

// Valid text without leading and trailing spaces, as Python's str.strip() and Jinja's trim do it.
std::string_view TrimSpace(std::string_view text);

}  // namespace kvasir
