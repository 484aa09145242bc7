#include "engine/tokenizer/table_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/tokenizer/utf8.h"

namespace kvasir {
namespace {

constexpr size_t kMostTokens = size_t{1} << 24;
constexpr size_t kMostBytes = size_t{256} << 20;  // of a vocabulary or a text
constexpr size_t kLongestToken = size_t{1} << 16;

Status Broken(const std::string& what) { return DataLoss("vocabulary: " + what); }

Status CheckSizes(const VocabularyData& v) {
  if (v.tokens.empty()) return Broken("there are no tokens");
  if (v.tokens.size() > kMostTokens) return Broken("over 2^24 tokens");
  const auto fits = [&v](size_t size) { return size == 0 || size == v.tokens.size(); };
  if (!fits(v.types.size())) {
    return Broken(std::to_string(v.types.size()) + " token types for " +
                  std::to_string(v.tokens.size()) + " tokens");
  }
  if (!fits(v.scores.size())) {
    return Broken(std::to_string(v.scores.size()) + " scores for " +
                  std::to_string(v.tokens.size()) + " tokens");
  }
  size_t bytes = 0;
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    bytes += v.tokens[i].size();
    if (v.tokens[i].size() > kLongestToken) {
      return Broken("token " + std::to_string(i) + " is longer than 64 KiB");
    }
  }
  return bytes <= kMostBytes ? Status::Ok() : Broken("over 256 MiB of token text");
}

Status CheckIds(const VocabularyData& v) {
  const auto check = [&v](std::string_view name, int32_t id) {
    if (id >= -1 && id < static_cast<int32_t>(v.tokens.size())) return Status::Ok();
    return Broken(std::string(name) + " token id " + std::to_string(id) + " is outside 0.." +
                  std::to_string(v.tokens.size() - 1));
  };
  KVASIR_RETURN_IF_ERROR(check("bos", v.bos));
  KVASIR_RETURN_IF_ERROR(check("eos", v.eos));
  KVASIR_RETURN_IF_ERROR(check("unknown", v.unknown));
  for (const int32_t id : v.end_of_generation) {
    KVASIR_RETURN_IF_ERROR(check("end-of-generation", id));
  }
  return Status::Ok();
}

// "<s>", "[CLS]", "<|im_end|>": without types, the look of a control token.
bool LooksLikeMarker(std::string_view text) {
  return text.size() > 2 && ((text.front() == '<' && text.back() == '>') ||
                             (text.front() == '[' && text.back() == ']'));
}

Result<std::vector<TokenKind>> KindsFromTypes(const std::vector<int32_t>& types) {
  constexpr std::array<TokenKind, 7> kKinds = {
      TokenKind::kNormal,      TokenKind::kNormal, TokenKind::kUnknown, TokenKind::kControl,
      TokenKind::kUserDefined, TokenKind::kUnused, TokenKind::kByte};
  std::vector<TokenKind> kinds(types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] < 0 || types[i] >= static_cast<int32_t>(kKinds.size())) {
      return Broken("token " + std::to_string(i) + " has type " + std::to_string(types[i]) +
                    ", known are 0..6");
    }
    kinds[i] = kKinds[static_cast<size_t>(types[i])];
  }
  return kinds;
}

std::vector<TokenKind> GuessKinds(const VocabularyData& v) {
  std::vector<TokenKind> kinds(v.tokens.size(), TokenKind::kNormal);
  for (size_t i = 0; i < kinds.size(); ++i) {
    if (v.model == "llama" && ParseByteToken(v.tokens[i]) >= 0) kinds[i] = TokenKind::kByte;
  }
  const auto mark = [&](int32_t id, TokenKind kind) {
    if (id < 0 || id >= static_cast<int32_t>(kinds.size())) return;
    const auto i = static_cast<size_t>(id);
    if (LooksLikeMarker(v.tokens[i])) kinds[i] = kind;
  };
  mark(v.unknown, TokenKind::kUnknown);
  mark(v.padding, TokenKind::kControl);
  mark(v.bos, TokenKind::kControl);
  mark(v.eos, TokenKind::kControl);
  for (const int32_t id : v.end_of_generation) mark(id, TokenKind::kControl);
  return kinds;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

int ParseByteToken(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const int high = HexDigit(text[3]), low = HexDigit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

Status CheckText(std::string_view text) {
  if (text.size() > kMostBytes) return InvalidArgument("text is longer than 256 MiB");
  return CheckUtf8(text, "text");
}

Result<std::vector<TokenKind>> CheckVocabulary(const VocabularyData& v) {
  KVASIR_RETURN_IF_ERROR(CheckSizes(v));
  KVASIR_RETURN_IF_ERROR(CheckIds(v));
  if (v.types.empty()) return GuessKinds(v);
  return KindsFromTypes(v.types);
}

Status TableTokenizer::Init(const VocabularyData& v) {
  KVASIR_ASSIGN_OR_RETURN(kinds_, CheckVocabulary(v));
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    const int32_t id = tokens_.Add(SearchForm(v.tokens[i], kinds_[i]));
    if (kinds_[i] == TokenKind::kControl && !v.tokens[i].empty()) control_.emplace(v.tokens[i], id);
    if (kinds_[i] == TokenKind::kUserDefined) user_defined_.Insert(tokens_.Text(id), id);
  }
  tokens_.BuildIndex([this](int32_t id) { return IsMergeable(id); });
  bos_ = v.bos;
  eos_ = v.eos;
  add_bos_ = v.add_bos && v.bos >= 0;
  end_of_generation_ = v.end_of_generation;
  return Status::Ok();
}

std::string TableTokenizer::TokenBytes(int32_t id, bool special) const {
  if (!tokens_.Contains(id)) return {};
  const bool hidden = Kind(id) == TokenKind::kControl || Kind(id) == TokenKind::kUnknown;
  if (hidden) return special ? std::string(tokens_.Text(id)) : std::string();
  return RunningText(id);
}

int32_t TableTokenizer::SpecialId(std::string_view text) const {
  const auto found = control_.find(std::string(text));
  return found == control_.end() ? -1 : found->second;
}

}  // namespace kvasir
