// ByteLevelBpe: GPT-2 style byte-pair encoding ("gpt2" vocabularies).
//
// Bytes that the vocabulary has no token for vanish, as in Hugging Face `tokenizers` and llama.cpp
// (SmolLM2 lacks 21 bytes, eight of which occur in valid UTF-8).
#pragma once

#include <array>
#include <memory>

#include "engine/tokenizer/flat_map.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/symbol_merger.h"
#include "engine/tokenizer/table_tokenizer.h"

namespace kvasir {

class ByteLevelBpe : public TableTokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> Create(const VocabularyData& vocabulary);
  Result<std::vector<int32_t>> Encode(std::string_view text) const override;

 protected:
  std::string SearchForm(const std::string& token, TokenKind kind) const override;

 private:
  Status AddMerges(const std::vector<std::string>& merges);
  Status AddMerge(std::string_view merge, uint32_t rank);
  Status EncodePlain(std::string_view text, MergeScratch* scratch, std::vector<int32_t>* ids) const;
  void AppendWord(std::string_view word, MergeScratch* scratch, std::vector<int32_t>* ids) const;

  std::unique_ptr<PreTokenizer> pre_;
  uint64_t owner_ = 0;                   // of entries of the word cache
  std::array<int32_t, 256> byte_ids_{};  // -1 = no token
  FlatMap<Merge> merges_;                // left id << 32 | right id
};

}  // namespace kvasir
