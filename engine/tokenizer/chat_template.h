// ChatTemplate: how a conversation becomes token ids, split where documents go in.
//
// The template family is recognised from the model file's Jinja source (ChatML, Llama 3, Llama 2 /
// Mistral, Gemma, Zephyr, plain); it is not interpreted. Control tokens enter by id, user text is
// encoded as plain text, so text can never forge a control token.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "kernels/core/status.h"

namespace kvasir {

struct ChatMessage {
  std::string role;  // "system" (or "developer"), "user", "assistant"
  std::string content;
};

// A prompt around documents:  anchor | document 1 | ... | document n | tail.
struct ChatPrompt {
  std::vector<int32_t> anchor;  // BOS, template opening, system text, opening of the user's turn,
                                // and, if there are documents, "Passages:\n"
  std::vector<int32_t> tail;    // the user's text, later turns, opening of the assistant's turn
};

class ChatTemplate {
 public:
  // The family named by the Jinja source; an empty or unknown one is the plain family
  // (known() says so, for doctor and logs).
  static ChatTemplate Detect(const VocabularyData& vocabulary, const Tokenizer& tokenizer);

  std::string_view family() const;
  bool known() const;

  // Without documents anchor is the part up to the end of the system text. The first user message
  // follows the documents. The system text is the leading system message, else `default_system`.
  Result<ChatPrompt> Render(const std::vector<ChatMessage>& messages, bool with_documents,
                            std::string_view default_system) const;
  // One document as it stands in the prompt, encoded alone: "Passage: <title>\n<text>\n".
  Result<std::vector<int32_t>> RenderDocument(std::string_view title, std::string_view text) const;
  // Token ids that end an answer.
  const std::vector<int32_t>& stop_ids() const { return stop_ids_; }

 private:
  const Tokenizer* tokenizer_ = nullptr;  // must outlive this
  int family_ = 0;
  std::vector<int32_t> stop_ids_;
};

}  // namespace kvasir
