// BertText: what BERT's uncased normaliser and pre-tokenizer do to one character.
//
// Pure functions; thread-safe. Character classes are those of Hugging Face `tokenizers`, whose
// tables are older than utf8proc's: the differences are listed in bert_text.cc.
#pragma once

#include <string>

namespace kvasir {

// Appends `c` cleaned (spaces become ' ', control characters vanish), decomposed, without accents,
// in lower case, CJK ideographs between spaces.
void AppendBertNormalized(char32_t c, std::u32string* out);

// Punctuation is a word of its own.
bool IsBertPunctuation(char32_t c);

}  // namespace kvasir
