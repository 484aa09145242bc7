#include "engine/tokenizer/conversation.h"

#include "engine/tokenizer/utf8.h"

namespace kvasir {
namespace {

using Role = Conversation::Role;

bool HasSystemRole(ChatFamily family) {
  return family == ChatFamily::kChatMl || family == ChatFamily::kLlama3 ||
         family == ChatFamily::kZephyr;
}

bool NeedsUser(ChatFamily family) {
  return family == ChatFamily::kLlama2 || family == ChatFamily::kMistral;
}

std::string Name(size_t index) { return "messages[" + std::to_string(index) + "]"; }

Result<Role> ReadRole(const ChatMessage& message, size_t index) {
  if (message.role == "system" || message.role == "developer") return Role::kSystem;
  if (message.role == "user") return Role::kUser;
  if (message.role == "assistant") return Role::kAssistant;
  KVASIR_RETURN_IF_ERROR(CheckUtf8(message.role, Name(index) + ".role"));
  return InvalidArgument(Name(index) + ".role \"" + message.role +
                         "\" is not supported; use system, developer, user or assistant");
}

Status AddMessage(const ChatMessage& message, size_t index, ChatFamily family, Conversation* c) {
  KVASIR_ASSIGN_OR_RETURN(const Role role, ReadRole(message, index));
  KVASIR_RETURN_IF_ERROR(CheckUtf8(message.content, Name(index) + ".content"));
  if (role == Role::kSystem && c->turns.empty() && !c->system) {
    c->system = message.content;
    return Status::Ok();
  }
  if (role == Role::kSystem && !HasSystemRole(family)) {
    if (!c->turns.empty()) {
      return InvalidArgument(Name(index) +
                             ": with this model's template a system message may only come first");
    }
    *c->system += "\n\n" + message.content;
    return Status::Ok();
  }
  c->turns.push_back({role, message.content});
  return Status::Ok();
}

void FindUsers(Conversation* c) {
  c->first_user = c->last_user = c->turns.size();
  for (size_t i = c->turns.size(); i-- > 0;) {
    if (c->turns[i].role != Role::kUser) continue;
    c->first_user = i;
    if (c->last_user == c->turns.size()) c->last_user = i;
  }
}

}  // namespace

Result<Conversation> ReadConversation(const std::vector<ChatMessage>& messages, bool with_documents,
                                      std::string_view default_system, ChatFamily family) {
  if (messages.empty()) return InvalidArgument("messages is empty");
  KVASIR_RETURN_IF_ERROR(CheckUtf8(default_system, "the default system text"));
  Conversation c;
  c.with_documents = with_documents;
  for (size_t i = 0; i < messages.size(); ++i) {
    KVASIR_RETURN_IF_ERROR(AddMessage(messages[i], i, family, &c));
  }
  if (!c.system && !default_system.empty()) c.system = default_system;
  FindUsers(&c);
  if (c.first_user == c.turns.size() && (with_documents || NeedsUser(family))) {
    return InvalidArgument("messages holds no user message");
  }
  return c;
}

}  // namespace kvasir
