// PromptBuilder: a prompt as control tokens and runs of text, encoded at the end, with one border
// between anchor and tail.
//
// A run of adjacent texts is encoded in one go, as the model's own tokenizer would see it.
// For one thread; the tokenizer must outlive it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/chat_template.h"

namespace kvasir {

class PromptBuilder {
 public:
  explicit PromptBuilder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  PromptBuilder& Text(std::string_view text);
  // A control token by its text; as plain text where the vocabulary has no such token.
  PromptBuilder& Control(std::string_view marker);
  PromptBuilder& Bos();  // nothing where there is none
  PromptBuilder& Eos();  // "</s>" as text where there is none

  // The tail begins here, or, within a run of text, at the beginning of the run.
  void SuggestBorder();
  // The tail begins here, whatever was suggested; a run of text is cut in two.
  void SetBorder();

  Result<ChatPrompt> Build() const;

 private:
  struct Part {
    int32_t id = -1;  // -1 = text
    std::string text;
  };
  enum class Border : uint8_t { kNone, kSuggested, kSet };
  PromptBuilder& Id(int32_t id);
  Status Flush(bool continues, std::string* run, std::vector<int32_t>* ids) const;

  const Tokenizer& tokenizer_;
  std::vector<Part> parts_;
  Border border_ = Border::kNone;
  size_t border_at_ = 0;  // index of the first part behind it
};

}  // namespace kvasir
