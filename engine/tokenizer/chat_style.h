// ReadChatStyle: recognises a template family and its details in a Jinja source, by its markers;
// nothing is interpreted. Pure functions.
#pragma once

#include <string_view>

#include "engine/tokenizer/chat_template.h"

namespace kvasir {

ChatStyle ReadChatStyle(std::string_view jinja);

std::string_view ChatFamilyName(ChatFamily family);
// The text of the control token that ends a turn, "" if that is EOS.
std::string_view TurnEnd(ChatFamily family);

}  // namespace kvasir
