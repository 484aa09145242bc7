// Text made safe to write: valid UTF-8, escaped for HTML and SVG. Pure; thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace kvasir {

// Ill-formed bytes become U+FFFD. What a model drew may end within a character.
std::string RepairUtf8(std::string_view text);

// RepairUtf8, with & < > " ' as entities and control characters that XML forbids as U+FFFD: fit for
// text and for quoted attributes.
std::string EscapeHtml(std::string_view text);

// At most `characters` characters of `text`, "..." behind what is cut.
std::string Shortened(std::string_view text, size_t characters);

}  // namespace kvasir
