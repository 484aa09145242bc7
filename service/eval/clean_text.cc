#include "service/eval/clean_text.h"

#include "engine/tokenizer/utf8.h"

namespace kvasir {
namespace {

constexpr char kReplacement[] = "\uFFFD";

bool IsForbidden(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 && c != '\t' && c != '\n' && c != '\r';
}

void AppendEscaped(char c, std::string* out) {
  switch (c) {
    case '&':
      *out += "&amp;";
      break;
    case '<':
      *out += "&lt;";
      break;
    case '>':
      *out += "&gt;";
      break;
    case '"':
      *out += "&quot;";
      break;
    case '\'':
      *out += "&#39;";
      break;
    default:
      if (IsForbidden(c)) {
        *out += kReplacement;
      } else {
        *out += c;
      }
  }
}

}  // namespace

std::string RepairUtf8(std::string_view text) {
  std::string out;
  while (true) {
    const size_t bad = FindInvalidUtf8(text);
    out += text.substr(0, bad);
    if (bad == text.size()) return out;
    out += kReplacement;
    text.remove_prefix(bad + 1);
  }
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : RepairUtf8(text)) AppendEscaped(c, &out);
  return out;
}

std::string Shortened(std::string_view text, size_t characters) {
  const std::string valid = RepairUtf8(text);
  size_t end = 0;
  for (size_t i = 0; i < characters && end < valid.size(); ++i) end += Utf8Length(valid[end]);
  if (end >= valid.size()) return valid;
  return valid.substr(0, end) + "...";
}

}  // namespace kvasir
