// Conversation: checked messages, the system text apart, and how each family writes them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/prompt_builder.h"

namespace kvasir {

struct Conversation {
  enum class Role : uint8_t { kSystem, kUser, kAssistant };
  struct Turn {
    Role role;
    std::string_view content;  // of the caller's message
  };
  std::optional<std::string> system;
  std::vector<Turn> turns;
  bool with_documents = false;
  size_t first_user = 0, last_user = 0;  // indices into turns; turns.size() if there is none

  std::string_view System() const { return system ? std::string_view(*system) : ""; }
};

// kInvalidArgument names the message and what is wrong with it.
Result<Conversation> ReadConversation(const std::vector<ChatMessage>& messages, bool with_documents,
                                      std::string_view default_system, ChatFamily family);

// Writes the whole prompt, the opening of the answer included.
void WriteConversation(const Conversation& conversation, const ChatStyle& style,
                       PromptBuilder* out);

}  // namespace kvasir
