// Sentences: where running text may be parted.
// Thread safety: free functions without state.
#pragma once

#include <string_view>
#include <vector>

namespace kvasir {

struct Sentence {
  std::string_view text;      // into the given text, without the spaces around it
  bool space_before = false;  // a space parted it from the one before
};

// Parts valid UTF-8 after . ! ? (and closing quotes or brackets) where a new sentence seems to
// begin, and after the full stops of Chinese and Japanese. Common abbreviations and initials do not
// end one. The texts, joined by a space where space_before, are the input again if its white space
// was collapsed.
std::vector<Sentence> SplitSentences(std::string_view text);

}  // namespace kvasir
