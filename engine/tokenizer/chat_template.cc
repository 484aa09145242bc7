#include "engine/tokenizer/chat_template.h"

#include <algorithm>

#include "engine/tokenizer/chat_style.h"
#include "engine/tokenizer/conversation.h"
#include "engine/tokenizer/prompt_builder.h"
#include "engine/tokenizer/utf8.h"

namespace kvasir {

ChatTemplate ChatTemplate::Detect(const VocabularyData& vocabulary, const Tokenizer& tokenizer) {
  ChatTemplate made;
  made.tokenizer_ = &tokenizer;
  made.style_ = ReadChatStyle(vocabulary.chat_template);
  made.style_.begins_with_bos |= tokenizer.adds_bos();
  made.stop_ids_ = tokenizer.end_of_generation();
  for (const int32_t id : {tokenizer.SpecialId(TurnEnd(made.style_.family)), tokenizer.eos()}) {
    const bool there =
        std::find(made.stop_ids_.begin(), made.stop_ids_.end(), id) != made.stop_ids_.end();
    if (id >= 0 && !there) made.stop_ids_.push_back(id);
  }
  return made;
}

std::string_view ChatTemplate::family() const { return ChatFamilyName(style_.family); }

Result<ChatPrompt> ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                        bool with_documents,
                                        std::string_view default_system) const {
  KVASIR_ASSIGN_OR_RETURN(
      const Conversation conversation,
      ReadConversation(messages, with_documents, default_system, style_.family));
  PromptBuilder builder(*tokenizer_);
  WriteConversation(conversation, style_, &builder);
  return builder.Build();
}

Result<std::vector<int32_t>> ChatTemplate::RenderDocument(std::string_view title,
                                                          std::string_view text) const {
  KVASIR_RETURN_IF_ERROR(CheckUtf8(title, "the document's title"));
  KVASIR_RETURN_IF_ERROR(CheckUtf8(text, "the document's text"));
  std::string passage = "Passage: ";
  if (!title.empty()) passage.append(title).append("\n");
  passage.append(text).append("\n");
  return tokenizer_->EncodeContinuation(passage);
}

}  // namespace kvasir
