// SentencePiece vocabularies: BPE by scores with byte fallback ("llama") and unigram ("t5").
//
// Semantics are those of the sentencepiece library with identity normalisation and without removal
// of extra spaces: spaces become U+2581, user-defined tokens are cut out first (leftmost, longest),
// characters without a token become byte tokens or, if there are none, one unknown token a run.
// Unused tokens are never produced.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "engine/tokenizer/symbol_merger.h"
#include "engine/tokenizer/table_tokenizer.h"

namespace kvasir {

class SentencePieceTokenizer : public TableTokenizer {
 public:
  // "llama" or "t5", as vocabulary.model says.
  static Result<std::unique_ptr<Tokenizer>> Create(const VocabularyData& vocabulary);

  Result<std::vector<int32_t>> Encode(std::string_view text) const override;
  Result<std::vector<int32_t>> EncodeContinuation(std::string_view text) const override;
  // Drops the space that Encode put in front.
  std::string Decode(const std::vector<int32_t>& ids, bool special = false) const override;

 protected:
  std::string SearchForm(const std::string& token, TokenKind kind) const override;
  std::string RunningText(int32_t id) const override;

  virtual Status InitModel(const VocabularyData& vocabulary) = 0;
  // Appends the ids of a piece of text without user-defined tokens, U+2581 for spaces.
  virtual Status EncodePlain(std::string_view text, MergeScratch* scratch,
                             std::vector<int32_t>* ids) const = 0;
  // Appends what stands for characters without a token.
  Status AppendUnknown(std::string_view characters, std::vector<int32_t>* ids) const;

 private:
  Status InitBytes(const VocabularyData& vocabulary);
  Result<std::vector<int32_t>> EncodeNormalized(std::string_view text, bool prefix) const;

  std::array<int32_t, 256> byte_ids_{};
  bool has_all_bytes_ = false;
  int32_t unknown_ = -1;
  bool add_space_prefix_ = true;
};

// Joins the adjacent pair whose text is the token of the highest score.
class ScoredBpe : public SentencePieceTokenizer {
 protected:
  Status InitModel(const VocabularyData& vocabulary) override;
  Status EncodePlain(std::string_view text, MergeScratch* scratch,
                     std::vector<int32_t>* ids) const override;

 private:
  void NoteInnerSpaces(std::string_view token);
  size_t WordLength(std::string_view text) const;
  void MergeWord(std::string_view word, MergeScratch* scratch) const;
  Status EncodeWord(std::string_view word, MergeScratch* scratch, std::vector<int32_t>* ids) const;

  uint64_t owner_ = 0;                // of entries of the word cache
  std::vector<uint32_t> priorities_;  // by id; lower = higher score
  std::array<int32_t, 128> ascii_ids_{};
  // Last bytes of the characters that some token has in front of an inner U+2581. Behind any other
  // character U+2581 begins a new word, and words can be encoded one by one.
  std::array<bool, 256> before_inner_space_{};
};

// The segmentation of the highest total score (Viterbi).
class Unigram : public SentencePieceTokenizer {
 protected:
  Status InitModel(const VocabularyData& vocabulary) override;
  Status EncodePlain(std::string_view text, MergeScratch* scratch,
                     std::vector<int32_t>* ids) const override;

 private:
  std::vector<float> scores_;
  float unknown_score_ = 0;  // of one character without a token
  ByteTrie trie_;
};

}  // namespace kvasir
