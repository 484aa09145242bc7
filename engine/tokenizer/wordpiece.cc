#include "engine/tokenizer/wordpiece.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "engine/tokenizer/bert_text.h"
#include "engine/tokenizer/utf8.h"

namespace kvasir {
namespace {

constexpr size_t kLongestWord = 100;               // characters; longer words are [UNK]
constexpr std::streamoff kLargestFile = 64 << 20;  // bytes of vocab.txt
constexpr std::string_view kContinuation = "##";

Result<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return NotFound("cannot open vocabulary " + path);
  const std::streamoff size = file.tellg();
  if (size < 0 || size > kLargestFile) {
    return InvalidArgument("vocabulary " + path + ": not a file of at most 64 MiB");
  }
  std::string text(static_cast<size_t>(size), '\0');
  file.seekg(0);
  if (!file.read(text.data(), size)) return DataLoss("vocabulary " + path + ": read failed");
  return text;
}

std::vector<std::string> SplitLines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    lines.emplace_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

Result<std::unique_ptr<WordPieceTokenizer>> WordPieceTokenizer::Load(const std::string& path) {
  KVASIR_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  auto made = FromTokens(SplitLines(text));
  if (!made.ok()) return Status(made.status().code(), path + ": " + made.status().message());
  return made;
}

Result<std::unique_ptr<WordPieceTokenizer>> WordPieceTokenizer::FromTokens(
    const std::vector<std::string>& tokens) {
  std::unique_ptr<WordPieceTokenizer> made(new WordPieceTokenizer());
  TokenTable& table = made->tokens_;
  for (const std::string& token : tokens) table.Add(token);
  table.BuildIndex([](int32_t) { return true; });
  made->unknown_ = table.Find("[UNK]");
  made->opening_ = table.Find("[CLS]");
  made->closing_ = table.Find("[SEP]");
  made->padding_ = table.Find("[PAD]");
  if (made->unknown_ < 0 || made->opening_ < 0 || made->closing_ < 0) {
    return DataLoss("not a WordPiece vocabulary: [UNK], [CLS] or [SEP] is missing");
  }
  return made;
}

// Greedy longest match from the left; `word` is valid, normalised UTF-8.
void WordPieceTokenizer::AppendWord(std::string_view word, std::vector<int32_t>* ids) const {
  const size_t before = ids->size();
  std::string piece;
  for (size_t begin = 0; begin < word.size();) {
    const std::string_view prefix = begin == 0 ? std::string_view() : kContinuation;
    const size_t longest = tokens_.longest() - std::min(tokens_.longest(), prefix.size());
    size_t end = std::min(word.size(), begin + longest);
    int32_t id = -1;
    for (; end > begin; --end) {
      piece.assign(prefix).append(word.substr(begin, end - begin));
      if ((id = tokens_.Find(piece)) >= 0) break;
    }
    if (id < 0) {
      ids->resize(before);
      ids->push_back(unknown_);
      return;
    }
    ids->push_back(id);
    begin = end;
  }
}

Result<std::vector<int32_t>> WordPieceTokenizer::Encode(std::string_view text,
                                                        int32_t max_tokens) const {
  if (max_tokens < 2) return InvalidArgument("max_tokens must be at least 2");
  KVASIR_RETURN_IF_ERROR(CheckUtf8(text, "text"));
  const auto limit = static_cast<size_t>(max_tokens) - 1;  // room for [SEP]
  std::vector<int32_t> ids = {opening_};
  std::u32string characters;
  std::string word;
  size_t word_length = 0;  // characters
  const auto flush = [&] {
    if (word_length > kLongestWord) ids.push_back(unknown_);
    if (word_length > 0 && word_length <= kLongestWord) AppendWord(word, &ids);
    word.clear();
    word_length = 0;
  };
  const auto grow = [&](char32_t c) {
    AppendUtf8(c, &word);
    ++word_length;
  };
  for (size_t offset = 0; offset < text.size() && ids.size() < limit;) {
    characters.clear();
    AppendBertNormalized(NextCodePoint(text, &offset), &characters);
    for (const char32_t c : characters) {
      const bool alone = IsBertPunctuation(c);
      if (alone || c == ' ') flush();
      if (c != ' ') grow(c);
      if (alone) flush();
    }
  }
  flush();
  ids.resize(std::min(ids.size(), limit));
  ids.push_back(closing_);
  return ids;
}

}  // namespace kvasir
