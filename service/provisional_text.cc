#include "service/provisional_text.h"

#include <algorithm>

namespace kvasir {
namespace {

bool BeginsCharacter(char byte) { return (static_cast<uint8_t>(byte) & 0xC0U) != 0x80U; }

}  // namespace

std::string ProvisionalText::Push(int32_t token) {
  if (settled_) return "";
  TokenEvent event;
  event.token = token;
  return text_.Push(event);
}

std::optional<int64_t> ProvisionalText::Verify(std::string_view verified, bool ended) {
  if (settled_) return std::nullopt;
  const std::string_view sent = text_.text();
  const size_t both = std::min(sent.size(), verified.size());
  const auto differ =
      std::mismatch(sent.begin(), sent.begin() + std::ptrdiff_t(both), verified.begin()).first;
  auto common = static_cast<size_t>(differ - sent.begin());
  settled_ = ended || common < both || verified.size() >= sent.size();
  if (common == sent.size() || (common == both && !ended)) return std::nullopt;
  while (common > 0 && !BeginsCharacter(sent[common])) --common;
  return std::count_if(sent.begin(), sent.begin() + std::ptrdiff_t(common), BeginsCharacter);
}

}  // namespace kvasir
