#include "engine/tokenizer/tokenizer.h"

#include "engine/tokenizer/byte_level_bpe.h"
#include "engine/tokenizer/sentence_piece.h"

namespace kvasir {

std::string Tokenizer::Decode(const std::vector<int32_t>& ids, bool special) const {
  std::string text;
  for (const int32_t id : ids) text += TokenBytes(id, special);
  return text;
}

Result<std::unique_ptr<Tokenizer>> MakeTokenizer(const VocabularyData& vocabulary) {
  if (vocabulary.model == "gpt2") return ByteLevelBpe::Create(vocabulary);
  if (vocabulary.model == "llama" || vocabulary.model == "t5") {
    return SentencePieceTokenizer::Create(vocabulary);
  }
  return Unimplemented("tokenizer model \"" + vocabulary.model +
                       "\" is not supported; supported are gpt2, llama, t5");
}

}  // namespace kvasir
