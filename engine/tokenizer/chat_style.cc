#include "engine/tokenizer/chat_style.h"

#include <string>

namespace kvasir {
namespace {

bool Has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

ChatFamily FamilyOf(std::string_view jinja) {
  if (Has(jinja, "<|im_start|>")) return ChatFamily::kChatMl;
  if (Has(jinja, "<|start_header_id|>")) return ChatFamily::kLlama3;
  if (Has(jinja, "<start_of_turn>")) return ChatFamily::kGemma;
  if (Has(jinja, "<<SYS>>")) return ChatFamily::kLlama2;
  if (Has(jinja, "[INST]")) return ChatFamily::kMistral;
  const bool zephyr = Has(jinja, "<|user|>") && Has(jinja, "<|assistant|>") &&
                      Has(jinja, "eos_token") && !Has(jinja, "<|end|>");
  return zephyr ? ChatFamily::kZephyr : ChatFamily::kPlain;
}

// Jinja source without spaces and with one kind of quotes, so that spellings compare.
std::string Squeezed(std::string_view jinja) {
  std::string out;
  for (const char c : jinja) {
    if (c == '"') {
      out.push_back('\'');
    } else if (c != ' ' && c != '\n') {
      out.push_back(c);
    }
  }
  return out;
}

void ReadMistral(std::string_view jinja, ChatStyle* style) {
  const std::string squeezed = Squeezed(jinja);
  style->system_in_last_turn = Has(squeezed, "loop.lastandsystem_messageisdefined");
  style->space_before_close = Has(jinja, "' [/INST]'") || Has(jinja, "\" [/INST]\"");
  style->space_before_answer = Has(jinja, "' ' + message") || Has(jinja, "\" \" + message");
  style->trims_answer = Has(squeezed, "|trim+eos_token") || Has(squeezed, ".strip()+eos_token");
  style->space_after_answer = Has(jinja, "eos_token + ' '") || Has(jinja, "eos_token + \" \"");
}

// The text of a literal "<|im_start|>system\n...<|im_end|>" that holds no expression.
std::string ChatMlDefault(std::string_view jinja) {
  constexpr std::string_view kOpen = "<|im_start|>system", kClose = "<|im_end|>";
  for (size_t at = jinja.find(kOpen); at != std::string_view::npos;
       at = jinja.find(kOpen, at + 1)) {
    std::string_view text = jinja.substr(at + kOpen.size());
    text = text.substr(0, text.find(kClose));
    const size_t newline = text.starts_with("\\n") ? 2 : text.starts_with('\n') ? 1 : 0;
    if (newline == 0 || text.size() == newline || Has(text, "'") || Has(text, "{")) continue;
    std::string found;
    for (size_t i = newline; i < text.size(); ++i) {
      const bool escape = text.substr(i).starts_with("\\n");
      found.push_back(escape ? '\n' : text[i]);
      i += escape ? 1 : 0;
    }
    return found;
  }
  return {};
}

}  // namespace

ChatStyle ReadChatStyle(std::string_view jinja) {
  ChatStyle style;
  style.family = FamilyOf(jinja);
  style.begins_with_bos = Has(jinja, "bos_token");
  style.dates_system = Has(jinja, "Cutting Knowledge Date");
  if (style.family == ChatFamily::kMistral) ReadMistral(jinja, &style);
  if (style.family == ChatFamily::kChatMl) style.default_system = ChatMlDefault(jinja);
  return style;
}

std::string_view ChatFamilyName(ChatFamily family) {
  switch (family) {
    case ChatFamily::kChatMl:
      return "chatml";
    case ChatFamily::kLlama3:
      return "llama3";
    case ChatFamily::kLlama2:
      return "llama2";
    case ChatFamily::kMistral:
      return "mistral";
    case ChatFamily::kGemma:
      return "gemma";
    case ChatFamily::kZephyr:
      return "zephyr";
    case ChatFamily::kPlain:
      break;
  }
  return "plain";
}

std::string_view TurnEnd(ChatFamily family) {
  switch (family) {
    case ChatFamily::kChatMl:
      return "<|im_end|>";
    case ChatFamily::kLlama3:
      return "<|eot_id|>";
    case ChatFamily::kGemma:
      return "<end_of_turn>";
    default:
      return "";
  }
}

}  // namespace kvasir
