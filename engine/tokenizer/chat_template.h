// ChatTemplate: how a conversation becomes token ids, split where documents go in.
//
// The template family is recognised from the model file's Jinja source (ChatML, Llama 3, Llama 2 /
// Mistral, Gemma, Zephyr, plain); it is not interpreted. Control tokens enter by id, user text is
// encoded as plain text, so text can never forge a control token.
#pragma once

#include <cstdint>
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

enum class ChatFamily : uint8_t { kPlain, kChatMl, kLlama3, kLlama2, kMistral, kGemma, kZephyr };

// What a Jinja source says about its family's details.
struct ChatStyle {
  ChatFamily family = ChatFamily::kPlain;
  bool begins_with_bos = false;
  bool dates_system = false;         // Llama 3.1 and later: two lines of dates, always
  bool system_in_last_turn = false;  // Mistral: in front of the last user text, not the first
  bool space_before_close = true;    // Mistral: " [/INST]" or "[/INST]"
  bool space_before_answer = false;  // Mistral: in front of an assistant's text
  bool trims_answer = false;         // Mistral: an assistant's text
  bool space_after_answer = false;   // Mistral: behind the end token
  std::string default_system;
};

// Without documents, anchor and tail together are the ids of what the model's own template
// renders (published templates of the families above, generation prompt added); the anchor is the
// part up to the end of the system text, or the part before it where the system text shares a run
// of plain text with the user's (Gemma, Llama 2, Mistral, plain): it may then be BOS alone, or
// empty. With documents the anchor ends with "Passages:\n" in the first user turn, and the tail
// begins with "\n".
//
// Thread safety: immutable; every method may be called from any thread.
class ChatTemplate {
 public:
  // The family named by the Jinja source; an empty or unknown one is the plain family
  // (known() says so, for doctor and logs). `tokenizer` must outlive the result.
  static ChatTemplate Detect(const VocabularyData& vocabulary, const Tokenizer& tokenizer);

  std::string_view family() const;
  bool known() const { return style_.family != ChatFamily::kPlain; }
  // The system text that the model's own template falls back to, "" if it has none.
  const std::string& default_system() const { return style_.default_system; }

  // The first user message follows the documents. The system text is the leading system message,
  // else `default_system`; if that is empty, none.
  // kInvalidArgument names the message: unknown role, invalid UTF-8, no user message where one is
  // needed, a system message in the middle for a family that cannot say it.
  Result<ChatPrompt> Render(const std::vector<ChatMessage>& messages, bool with_documents,
                            std::string_view default_system) const;
  // One document as it stands in the prompt, encoded alone: "Passage: <title>\n<text>\n", or
  // "Passage: <text>\n" without a title.
  Result<std::vector<int32_t>> RenderDocument(std::string_view title, std::string_view text) const;
  // Token ids that end an answer.
  const std::vector<int32_t>& stop_ids() const { return stop_ids_; }

 private:
  const Tokenizer* tokenizer_ = nullptr;
  ChatStyle style_;
  std::vector<int32_t> stop_ids_;
};

}  // namespace kvasir
