#include "retrieval/sentences.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace kvasir {
namespace {

constexpr std::array<std::string_view, 22> kAbbreviations = {
    "e.g", "i.e", "etc", "vs", "cf",  "mr",   "mrs",    "ms",  "dr", "prof", "st",
    "no",  "fig", "sec", "ch", "vol", "resp", "approx", "inc", "jr", "sr",   "al"};

bool IsLetter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }

// The word that ends before `end`: letters and inner dots, lower case.
std::string WordBefore(std::string_view text, size_t end) {
  size_t begin = end;
  while (begin > 0 && (IsLetter(text[begin - 1]) || text[begin - 1] == '.')) --begin;
  std::string word(text.substr(begin, end - begin));
  for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return word;
}

// Whether the '.' at `at` belongs to an abbreviation or an initial such as the one in "D. R. Hipp".
bool IsAbbreviation(std::string_view text, size_t at) {
  const std::string word = WordBefore(text, at);
  if (word.size() == 1) return std::isupper(static_cast<unsigned char>(text[at - 1])) != 0;
  return std::find(kAbbreviations.begin(), kAbbreviations.end(), word) != kAbbreviations.end();
}

// Bytes of closing quotes and brackets at `at`.
size_t Closers(std::string_view text, size_t at) {
  size_t end = at;
  while (end < text.size()) {
    if (std::string_view("\"')]}").find(text[end]) != std::string_view::npos) {
      ++end;
    } else if (text.substr(end).starts_with("\u201D") || text.substr(end).starts_with("\u2019")) {
      end += 3;
    } else {
      break;
    }
  }
  return end - at;
}

bool MayBegin(std::string_view rest) {
  return !rest.empty() && std::islower(static_cast<unsigned char>(rest[0])) == 0 &&
         std::string_view(",;:)").find(rest[0]) == std::string_view::npos;
}

bool IsWideStop(std::string_view rest) {
  return rest.starts_with("\u3002") || rest.starts_with("\uFF01") || rest.starts_with("\uFF1F");
}

// End of the sentence whose final mark stands at `at`; 0 if none ends here.
size_t SentenceEnd(std::string_view text, size_t at) {
  if (IsWideStop(text.substr(at))) return at + 3 + Closers(text, at + 3);
  if (text[at] != '.' && text[at] != '!' && text[at] != '?') return 0;
  const size_t end = at + 1 + Closers(text, at + 1);
  if (end >= text.size() || text[end] != ' ' || !MayBegin(text.substr(end + 1))) return 0;
  return text[at] == '.' && IsAbbreviation(text, at) ? 0 : end;
}

}  // namespace

std::vector<Sentence> SplitSentences(std::string_view text) {
  std::vector<Sentence> sentences;
  size_t begin = 0;
  bool space = false;
  const auto cut = [&](size_t end) {
    if (end > begin) sentences.push_back({text.substr(begin, end - begin), space});
    space = end < text.size() && text[end] == ' ';
    begin = end + (space ? 1 : 0);
  };
  for (size_t at = 0; at < text.size(); ++at) {
    const size_t end = SentenceEnd(text, at);
    if (end == 0) continue;
    cut(end);
    at = end - 1;
  }
  cut(text.size());
  return sentences;
}

}  // namespace kvasir
