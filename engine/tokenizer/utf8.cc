#include "engine/tokenizer/utf8.h"

#include <cstring>

#include "engine/tokenizer/tokenizer.h"

namespace kvasir {
namespace {

// Whether `second` may follow `lead` in a sequence of two or more bytes.
bool SecondByteFits(unsigned char lead, unsigned char second) {
  switch (lead) {
    case 0xE0:
      return second >= 0xA0 && second <= 0xBF;  // shorter would be overlong
    case 0xED:
      return second >= 0x80 && second <= 0x9F;  // above are surrogates
    case 0xF0:
      return second >= 0x90 && second <= 0xBF;
    case 0xF4:
      return second >= 0x80 && second <= 0x8F;  // above U+10FFFF
    default:
      return second >= 0x80 && second <= 0xBF;
  }
}

struct Sequence {
  size_t bytes;   // that belong together, >= 1
  bool complete;  // a whole valid character
  bool extends;   // a valid beginning that the end of the text cut off
};

// The longest prefix of `text` (not empty) that begins a character (Unicode 3.9, "maximal
// subpart"), at most one character.
Sequence ReadSequence(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t length = Utf8Length(text[0]);
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, false, true};
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool fits = i == 1 ? SecondByteFits(lead, byte) : (byte & 0xC0) == 0x80;
    if (!fits) return {i, false, false};
  }
  return {length, true, false};
}

size_t SkipAscii(std::string_view text, size_t offset) {
  uint64_t word;
  while (offset + sizeof word <= text.size()) {
    std::memcpy(&word, text.data() + offset, sizeof word);
    if ((word & 0x8080808080808080u) != 0) break;
    offset += sizeof word;
  }
  while (offset < text.size() && static_cast<unsigned char>(text[offset]) < 0x80) ++offset;
  return offset;
}

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Appends `bytes` to *out with U+FFFD for every broken part; returns how many bytes at the end
// are the beginning of an unfinished character and were left out.
size_t AppendRepaired(std::string_view bytes, std::string* out) {
  size_t offset = 0;
  while (offset < bytes.size()) {
    const Sequence next = ReadSequence(bytes.substr(offset));
    if (next.extends) return next.bytes;
    out->append(next.complete ? bytes.substr(offset, next.bytes) : kReplacement);
    offset += next.bytes;
  }
  return 0;
}

}  // namespace

size_t FindInvalidUtf8(std::string_view text) {
  size_t offset = 0;
  while ((offset = SkipAscii(text, offset)) < text.size()) {
    const Sequence next = ReadSequence(text.substr(offset));
    if (!next.complete) return offset;
    offset += next.bytes;
  }
  return offset;
}

Status CheckUtf8(std::string_view text, std::string_view what) {
  const size_t offset = FindInvalidUtf8(text);
  if (offset == text.size()) return Status::Ok();
  return InvalidArgument(std::string(what) + " is not valid UTF-8 at byte " +
                         std::to_string(offset));
}

char32_t NextCodePoint(std::string_view text, size_t* offset) {
  const char* at = text.data() + *offset;
  const size_t length = Utf8Length(*at);
  *offset += length;
  const auto byte = [at](size_t i) { return static_cast<char32_t>(at[i] & 0x3F); };
  switch (length) {
    case 1:
      return static_cast<unsigned char>(*at);
    case 2:
      return (static_cast<char32_t>(*at & 0x1F) << 6) | byte(1);
    case 3:
      return (static_cast<char32_t>(*at & 0x0F) << 12) | (byte(1) << 6) | byte(2);
    default:
      return (static_cast<char32_t>(*at & 0x07) << 18) | (byte(1) << 12) | (byte(2) << 6) | byte(3);
  }
}

void AppendUtf8(char32_t c, std::string* out) {
  const auto put = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xC0 | (c >> 6));
  } else {
    if (c < 0x10000) {
      put(0xE0 | (c >> 12));
    } else {
      put(0xF0 | (c >> 18));
      put(0x80 | ((c >> 12) & 0x3F));
    }
    put(0x80 | ((c >> 6) & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

size_t CountCodePoints(std::string_view text) {
  size_t count = 0;
  for (const char byte : text) count += (byte & 0xC0) != 0x80;
  return count;
}

bool IsSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view TrimSpace(std::string_view text) {
  size_t begin = 0, end = 0;
  bool inside = false;
  for (size_t offset = 0; offset < text.size();) {
    const size_t start = offset;
    if (IsSpace(NextCodePoint(text, &offset))) continue;
    if (!inside) begin = start;
    inside = true;
    end = offset;
  }
  return text.substr(begin, end - begin);
}

std::string Utf8Assembler::Push(std::string_view bytes) {
  pending_.append(bytes);
  std::string out;
  const size_t held = AppendRepaired(pending_, &out);
  pending_.erase(0, pending_.size() - held);
  return out;
}

std::string Utf8Assembler::Finish() {
  std::string out(pending_.empty() ? std::string_view() : kReplacement);
  pending_.clear();
  return out;
}

}  // namespace kvasir
