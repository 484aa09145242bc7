// Tokenizer: text to token ids and back, made from a model file's own vocabulary.
//
// Thread safety: immutable after creation; every method may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/model.h"
#include "kernels/core/status.h"

namespace kvasir {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of plain text. Special tokens written in the text are *not* parsed as special, and no BOS
  // or EOS is added. Invalid UTF-8 is kInvalidArgument.
  virtual Result<std::vector<int32_t>> Encode(std::string_view text) const = 0;

  // The same for text in the middle of a prompt: SentencePiece puts no space in front of it.
  virtual Result<std::vector<int32_t>> EncodeContinuation(std::string_view text) const {
    return Encode(text);
  }

  // The bytes of one token as they appear in running text ("" for control tokens unless
  // `special`). A token may hold part of a UTF-8 character.
  virtual std::string TokenBytes(int32_t id, bool special = false) const = 0;
  virtual std::string Decode(const std::vector<int32_t>& ids, bool special = false) const;

  // The id of a control token by its exact text, e.g. "<|im_end|>"; -1 if there is none.
  virtual int32_t SpecialId(std::string_view text) const = 0;
  virtual int32_t VocabularySize() const = 0;

  int32_t bos() const { return bos_; }  // -1 if there is none
  int32_t eos() const { return eos_; }
  bool adds_bos() const { return add_bos_; }
  const std::vector<int32_t>& end_of_generation() const { return end_of_generation_; }

 protected:
  int32_t bos_ = -1, eos_ = -1;
  bool add_bos_ = false;
  std::vector<int32_t> end_of_generation_;
};

// Byte-level BPE ("gpt2" with pre-tokenizers gpt-2, smollm, llama-bpe, qwen2), SentencePiece style
// BPE with byte fallback ("llama") or SentencePiece unigram ("t5"). kUnimplemented names what was
// found, kDataLoss what is wrong with the vocabulary.
Result<std::unique_ptr<Tokenizer>> MakeTokenizer(const VocabularyData& vocabulary);

// Holds back the bytes of an unfinished UTF-8 character between tokens of a stream.
class Utf8Assembler {
 public:
  std::string Push(std::string_view bytes);  // the complete characters so far
  std::string Finish();                      // the rest, replaced by U+FFFD if broken

 private:
  std::string pending_;
};

}  // namespace kvasir
