// TableTokenizer: what all tokenizers of model files share: the checked vocabulary, control tokens
// by text, and user-defined tokens, which are cut out of the text before anything else sees it
// (leftmost, longest). Control tokens are never found in text.
//
// Thread safety: immutable after Init.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/tokenizer/byte_trie.h"
#include "engine/tokenizer/token_table.h"
#include "engine/tokenizer/tokenizer.h"

namespace kvasir {

enum class TokenKind : uint8_t { kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };

// The kind of every token; where the file gives no types, ids named as special by the file and
// texts like <0x0A> decide. kDataLoss: arrays of different lengths, ids out of range, too large.
Result<std::vector<TokenKind>> CheckVocabulary(const VocabularyData& vocabulary);

// The byte of a token text of exactly the form <0xNN>, else -1.
int ParseByteToken(std::string_view text);

// kInvalidArgument: invalid UTF-8, or more than 256 MiB.
Status CheckText(std::string_view text);

class TableTokenizer : public Tokenizer {
 public:
  std::string TokenBytes(int32_t id, bool special = false) const override;
  int32_t SpecialId(std::string_view text) const override;
  int32_t VocabularySize() const override { return tokens_.size(); }

 protected:
  // The text of a token in the form in which Encode looks for it, e.g. bytes, or with U+2581.
  virtual std::string SearchForm(const std::string& token, TokenKind kind) const = 0;
  // The other way round: bytes of running text.
  virtual std::string RunningText(int32_t id) const { return std::string(tokens_.Text(id)); }

  Status Init(const VocabularyData& vocabulary);

  TokenKind Kind(int32_t id) const { return kinds_[static_cast<size_t>(id)]; }
  // Whether Encode may produce the token by joining others.
  bool IsMergeable(int32_t id) const {
    return Kind(id) == TokenKind::kNormal || Kind(id) == TokenKind::kUserDefined;
  }

  // Cuts `text` at user-defined tokens: plain(piece) and user(id) in order; stops at an error.
  template <typename Plain, typename User>
  Status SplitAtUserTokens(std::string_view text, const Plain& plain, const User& user) const;

  TokenTable tokens_;  // in search form; findable: the mergeable ones
  ByteTrie user_defined_;

 private:
  std::vector<TokenKind> kinds_;
  std::unordered_map<std::string, int32_t> control_;
};

template <typename Plain, typename User>
Status TableTokenizer::SplitAtUserTokens(std::string_view text, const Plain& plain,
                                         const User& user) const {
  size_t begin = 0;
  for (size_t at = 0; at < text.size() && !user_defined_.empty();) {
    size_t length = 0;
    int32_t id = -1;
    if (user_defined_.Begins(text[at])) {
      user_defined_.ForEachPrefix(text.substr(at), [&](size_t l, int32_t i) {
        length = l;
        id = i;
      });
    }
    if (id < 0) {
      ++at;
      continue;
    }
    if (at > begin) KVASIR_RETURN_IF_ERROR(plain(text.substr(begin, at - begin)));
    user(id);
    begin = at += length;
  }
  return begin < text.size() ? plain(text.substr(begin)) : Status::Ok();
}

}  // namespace kvasir
