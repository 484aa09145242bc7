#include "service/http/http_types.h"

#include <cstdint>

namespace kvasir {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool Decode(std::string_view text, bool plus_is_space, std::string* out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      if (i + 2 >= text.size()) return false;
      const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
      if (high < 0 || low < 0) return false;
      *out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      *out += plus_is_space && text[i] == '+' ? ' ' : text[i];
    }
  }
  return IsUtf8(*out) && out->find('\0') == std::string::npos;
}

bool DecodeQuery(std::string_view text, std::map<std::string, std::string>* query) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t split = std::min(pair.find('='), pair.size());
    std::string name, value;
    if (!Decode(pair.substr(0, split), true, &name)) return false;
    if (split < pair.size() && !Decode(pair.substr(split + 1), true, &value)) return false;
    if (!name.empty()) (*query)[name] = value;
  }
  return true;
}

// Bytes of the character that begins at text[0], 0 if it is broken.
size_t CharacterLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const uint8_t second = byte(1);
  if (lead == 0xE0 && second < 0xA0) return 0;  // overlong
  if (lead == 0xED && second > 0x9F) return 0;  // surrogate
  if (lead == 0xF0 && second < 0x90) return 0;  // overlong
  if (lead == 0xF4 && second > 0x8F) return 0;  // beyond U+10FFFF
  return length;
}

}  // namespace

HttpReply ErrorReply(const ApiError& error) {
  HttpReply reply;
  reply.status = error.status;
  reply.body = ErrorBody(error);
  if (error.status == 429 || error.status == 503) {
    reply.headers.emplace_back("retry-after", "1");
    reply.headers.emplace_back("retry-after-ms", "1000");
  } else if (error.status >= 400 && error.status < 500) {
    reply.headers.emplace_back("x-should-retry", "false");
  }
  if (error.status == 401) reply.headers.emplace_back("www-authenticate", "Bearer");
  return reply;
}

bool ParseTarget(std::string_view target, HttpRequest* request) {
  if (target.empty() || target[0] != '/') return false;
  const size_t question = std::min(target.find('?'), target.size());
  request->path.clear();
  if (!Decode(target.substr(0, question), false, &request->path)) return false;
  return question == target.size() || DecodeQuery(target.substr(question + 1), &request->query);
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

bool ConstantTimeEqual(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0u : 1u;
  for (size_t i = 0; i < a.size(); ++i) {
    const char other = b.empty() ? '\0' : b[i % b.size()];
    difference |= static_cast<unsigned>(static_cast<uint8_t>(a[i] ^ other));
  }
  return difference == 0;
}

namespace {
constexpr std::string_view kBearer = "Bearer ";
}  // namespace

bool IsAuthorized(std::string_view authorization, const std::vector<std::string>& keys) {
  if (keys.empty()) return true;
  if (!authorization.starts_with(kBearer)) return false;
  bool match = false;
  for (const std::string& key : keys) {
    match |= ConstantTimeEqual(authorization.substr(kBearer.size()), key);
  }
  return match;
}

std::string ApiKeyOf(std::string_view authorization, const std::vector<std::string>& keys) {
  if (keys.empty() || !IsAuthorized(authorization, keys)) return "";
  return std::string(authorization.substr(kBearer.size()));
}

}  // namespace kvasir
