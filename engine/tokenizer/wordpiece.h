// WordPieceTokenizer: BERT's uncased tokenizer, for sentence embedders such as all-MiniLM-L6-v2.
//
// Ids equal those of Hugging Face's BertNormalizer + BertPreTokenizer + WordPiece: control
// characters dropped, CJK ideographs spaced, accents stripped, lower case, split at spaces and
// punctuation, greedy longest match; a word over 100 characters or with no match is [UNK].
// Special tokens written in the text ("[SEP]") are plain text.
// Thread safety: immutable after creation; every method may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/token_table.h"
#include "kernels/core/status.h"

namespace kvasir {

class WordPieceTokenizer {
 public:
  // Reads vocab.txt: one token a line, its id the line's number from 0. At most 64 MiB.
  static Result<std::unique_ptr<WordPieceTokenizer>> Load(const std::string& path);
  // The same from memory. kDataLoss if [UNK], [CLS] or [SEP] is missing.
  static Result<std::unique_ptr<WordPieceTokenizer>> FromTokens(
      const std::vector<std::string>& tokens);

  // [CLS] ids [SEP], cut to at most max_tokens (>= 2) ids, [CLS] and [SEP] included.
  // kInvalidArgument: invalid UTF-8, max_tokens < 2.
  Result<std::vector<int32_t>> Encode(std::string_view text, int32_t max_tokens) const;

  int32_t VocabularySize() const { return tokens_.size(); }
  int32_t padding_id() const { return padding_; }  // -1 if there is no [PAD]

 private:
  WordPieceTokenizer() = default;
  void AppendWord(std::string_view word, std::vector<int32_t>* ids) const;

  TokenTable tokens_;
  int32_t unknown_ = -1, opening_ = -1, closing_ = -1, padding_ = -1;
};

}  // namespace kvasir
