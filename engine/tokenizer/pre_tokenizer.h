// PreTokenizer: cuts text into the words that byte-level BPE never merges across.
//
// Thread safety: immutable after creation; Split may be called from any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"

struct pcre2_real_code_8;  // PCRE2's compiled pattern

namespace kvasir {

class PreTokenizer {
 public:
  // `name` as in GGUF's tokenizer.ggml.pre. kUnimplemented lists what there is.
  static Result<std::unique_ptr<PreTokenizer>> Create(std::string_view name);
  ~PreTokenizer();

  // Replaces *words by the pieces of `text` (valid UTF-8) in order; together they are the text.
  // kInvalidArgument if the regular expression's limits are exceeded.
  Status Split(std::string_view text, std::vector<std::string_view>* words) const;

  // A word that is a token stays whole, whatever the merges say (Llama 3).
  bool ignores_merges() const { return ignores_merges_; }
  // Text is brought to Unicode's NFC first (Qwen 2).
  bool normalizes() const { return normalizes_; }

 private:
  PreTokenizer() = default;
  Status Compile(std::string_view pattern);

  pcre2_real_code_8* code_ = nullptr;
  bool ignores_merges_ = false, normalizes_ = false;
};

// Unicode normal form C of valid UTF-8.
Result<std::string> NormalizeNfc(std::string_view text);

}  // namespace kvasir
