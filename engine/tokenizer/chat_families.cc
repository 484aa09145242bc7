// How each family of templates writes a conversation. The texts are those of the published Jinja
// templates of the models that named the families.
#include "engine/tokenizer/conversation.h"
#include "engine/tokenizer/utf8.h"

namespace kvasir {
namespace {

using Role = Conversation::Role;
using Turn = Conversation::Turn;

constexpr std::string_view kPassages = "Passages:\n";
// Llama 3.1's template writes these lines; its own fallback date keeps prompts the same every day.
constexpr std::string_view kDates =
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";

std::string_view RoleName(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
  }
  return "";
}

// A turn's text, with the place for documents in front of the first user's.
void WriteContent(const Conversation& c, size_t turn, std::string_view content,
                  PromptBuilder* out) {
  if (c.with_documents && turn == c.first_user) {
    out->Text(kPassages).SetBorder();
    out->Text("\n");
  }
  out->Text(content);
}

void WriteChatMl(const Conversation& c, PromptBuilder* out) {
  const auto open = [out](std::string_view role) {
    out->Control("<|im_start|>").Text(role).Text("\n");
  };
  const auto close = [out] { out->Control("<|im_end|>").Text("\n"); };
  if (c.system) {
    open("system");
    out->Text(*c.system);
    close();
  }
  out->SuggestBorder();
  for (size_t i = 0; i < c.turns.size(); ++i) {
    open(RoleName(c.turns[i].role));
    WriteContent(c, i, c.turns[i].content, out);
    close();
  }
  open("assistant");
}

void WriteLlama3(const Conversation& c, const ChatStyle& style, PromptBuilder* out) {
  const auto open = [out](std::string_view role) {
    out->Control("<|start_header_id|>").Text(role).Control("<|end_header_id|>").Text("\n\n");
  };
  if (c.system || style.dates_system) {
    open("system");
    if (style.dates_system) out->Text(kDates);
    out->Text(TrimSpace(c.System())).Control("<|eot_id|>");
  }
  out->SuggestBorder();
  for (size_t i = 0; i < c.turns.size(); ++i) {
    open(RoleName(c.turns[i].role));
    WriteContent(c, i, TrimSpace(c.turns[i].content), out);
    out->Control("<|eot_id|>");
  }
  open("assistant");
}

void WriteGemma(const Conversation& c, PromptBuilder* out) {
  out->SuggestBorder();
  for (size_t i = 0; i < c.turns.size(); ++i) {
    const bool user = c.turns[i].role == Role::kUser;
    out->Control("<start_of_turn>").Text(user ? "user\n" : "model\n");
    if (i == 0 && c.system) out->Text(*c.system).Text("\n\n");
    WriteContent(c, i, TrimSpace(c.turns[i].content), out);
    out->Control("<end_of_turn>").Text("\n");
  }
  out->Control("<start_of_turn>").Text("model\n");
}

// A user's text with the system text in front; the whole is trimmed.
void WriteLlama2User(const Conversation& c, size_t turn, PromptBuilder* out) {
  std::string system;
  if (turn == c.first_user && c.system) system = "<<SYS>>\n" + *c.system + "\n<</SYS>>\n\n";
  const std::string_view content = c.turns[turn].content;
  out->Text("[INST] ");
  if (c.with_documents && turn == c.first_user) {
    out->Text(system);
    WriteContent(c, turn, TrimSpace(content), out);
  } else {
    out->Text(TrimSpace(system.append(content)));
  }
  out->Text(" [/INST]");
}

void WriteLlama2(const Conversation& c, const ChatStyle& style, PromptBuilder* out) {
  for (size_t i = 0; i < c.turns.size(); ++i) {
    if (c.turns[i].role == Role::kUser) {
      if (i > 0 && style.begins_with_bos) out->Bos();
      if (i == c.first_user) out->SuggestBorder();
      WriteLlama2User(c, i, out);
    } else {
      out->Text(" ").Text(TrimSpace(c.turns[i].content)).Text(" ").Eos();
    }
  }
}

void WriteMistral(const Conversation& c, const ChatStyle& style, PromptBuilder* out) {
  out->SuggestBorder();
  const bool last = style.system_in_last_turn && !c.with_documents;
  const size_t system_turn = last ? c.last_user : c.first_user;
  for (size_t i = 0; i < c.turns.size(); ++i) {
    const std::string_view content = c.turns[i].content;
    if (c.turns[i].role == Role::kUser) {
      out->Control("[INST]").Text(" ");
      if (i == system_turn && c.system) out->Text(*c.system).Text("\n\n");
      WriteContent(c, i, content, out);
      out->Text(style.space_before_close ? " " : "").Control("[/INST]");
    } else {
      out->Text(style.space_before_answer ? " " : "");
      out->Text(style.trims_answer ? TrimSpace(content) : content).Eos();
      out->Text(style.space_after_answer ? " " : "");
    }
  }
}

void WriteZephyr(const Conversation& c, PromptBuilder* out) {
  const auto open = [out](std::string_view role) {
    out->Control("<|" + std::string(role) + "|>").Text("\n");
  };
  if (c.system) {
    open("system");
    out->Text(*c.system).Eos();
  }
  out->SuggestBorder();
  if (c.system) out->Text("\n");
  for (size_t i = 0; i < c.turns.size(); ++i) {
    open(RoleName(c.turns[i].role));
    WriteContent(c, i, c.turns[i].content, out);
    out->Eos().Text("\n");
  }
  open("assistant");
}

// For base models: questions and answers as plain text.
void WritePlain(const Conversation& c, PromptBuilder* out) {
  out->SuggestBorder();
  if (c.system) out->Text(*c.system).Text("\n\n");
  for (size_t i = 0; i < c.turns.size(); ++i) {
    WriteContent(c, i, c.turns[i].role == Role::kUser ? "Question: " : "Answer: ", out);
    out->Text(c.turns[i].content).Text("\n");
  }
  out->Text("Answer:");
}

}  // namespace

void WriteConversation(const Conversation& c, const ChatStyle& style, PromptBuilder* out) {
  if (style.begins_with_bos) out->Bos();
  switch (style.family) {
    case ChatFamily::kChatMl:
      return WriteChatMl(c, out);
    case ChatFamily::kLlama3:
      return WriteLlama3(c, style, out);
    case ChatFamily::kGemma:
      return WriteGemma(c, out);
    case ChatFamily::kLlama2:
      return WriteLlama2(c, style, out);
    case ChatFamily::kMistral:
      return WriteMistral(c, style, out);
    case ChatFamily::kZephyr:
      return WriteZephyr(c, out);
    case ChatFamily::kPlain:
      return WritePlain(c, out);
  }
}

}  // namespace kvasir
