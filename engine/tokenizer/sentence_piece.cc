#include "engine/tokenizer/sentence_piece.h"

#include <algorithm>

#include "engine/tokenizer/utf8.h"
#include "engine/tokenizer/word_cache.h"

namespace kvasir {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581

void AppendEscaped(std::string_view text, std::string* out) {
  for (size_t begin = 0; begin <= text.size();) {
    const size_t space = std::min(text.find(' ', begin), text.size());
    out->append(text.substr(begin, space - begin));
    if (space < text.size()) out->append(kSpace);
    begin = space + 1;
  }
}

// Bytes of the U+2581 characters that `text` begins with.
size_t LeadingSpaces(std::string_view text) {
  size_t bytes = 0;
  while (text.substr(bytes).starts_with(kSpace)) bytes += kSpace.size();
  return bytes;
}

std::string Unescaped(std::string_view text) {
  std::string out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t space = std::min(text.find(kSpace, begin), text.size());
    out.append(text.substr(begin, space - begin));
    if (space < text.size()) out.push_back(' ');
    begin = space + kSpace.size();
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> SentencePieceTokenizer::Create(
    const VocabularyData& vocabulary) {
  std::unique_ptr<SentencePieceTokenizer> made;
  if (vocabulary.model == "t5") {
    made = std::make_unique<Unigram>();
  } else {
    made = std::make_unique<ScoredBpe>();
  }
  KVASIR_RETURN_IF_ERROR(made->Init(vocabulary));
  KVASIR_RETURN_IF_ERROR(made->InitBytes(vocabulary));
  KVASIR_RETURN_IF_ERROR(made->InitModel(vocabulary));
  return std::unique_ptr<Tokenizer>(std::move(made));
}

Status SentencePieceTokenizer::InitBytes(const VocabularyData& vocabulary) {
  if (vocabulary.scores.empty()) return DataLoss("vocabulary: there are no scores");
  byte_ids_.fill(-1);
  for (int32_t id = 0; id < tokens_.size(); ++id) {
    const int byte = Kind(id) == TokenKind::kByte ? ParseByteToken(tokens_.Text(id)) : -1;
    if (byte >= 0) byte_ids_[static_cast<size_t>(byte)] = id;
  }
  has_all_bytes_ =
      std::all_of(byte_ids_.begin(), byte_ids_.end(), [](int32_t id) { return id >= 0; });
  unknown_ = vocabulary.unknown;
  add_space_prefix_ = vocabulary.add_space_prefix;
  return Status::Ok();
}

std::string SentencePieceTokenizer::SearchForm(const std::string& token, TokenKind kind) const {
  if (kind != TokenKind::kNormal && kind != TokenKind::kUserDefined) return token;
  std::string escaped;
  AppendEscaped(token, &escaped);
  return escaped;
}

std::string SentencePieceTokenizer::RunningText(int32_t id) const {
  const int byte = Kind(id) == TokenKind::kByte ? ParseByteToken(tokens_.Text(id)) : -1;
  return byte >= 0 ? std::string(1, static_cast<char>(byte)) : Unescaped(tokens_.Text(id));
}

std::string SentencePieceTokenizer::Decode(const std::vector<int32_t>& ids, bool special) const {
  std::string text = Tokenizer::Decode(ids, special);
  if (add_space_prefix_ && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

Status SentencePieceTokenizer::AppendUnknown(std::string_view characters,
                                             std::vector<int32_t>* ids) const {
  if (has_all_bytes_) {
    for (const char c : characters) ids->push_back(byte_ids_[static_cast<unsigned char>(c)]);
    return Status::Ok();
  }
  if (unknown_ < 0) {
    return InvalidArgument("the vocabulary has no token for \"" + std::string(characters) +
                           "\", no byte tokens and no unknown token");
  }
  if (ids->empty() || ids->back() != unknown_) ids->push_back(unknown_);
  return Status::Ok();
}

Result<std::vector<int32_t>> SentencePieceTokenizer::EncodeNormalized(std::string_view text,
                                                                      bool prefix) const {
  KVASIR_RETURN_IF_ERROR(CheckText(text));
  std::string escaped(prefix && !text.empty() ? kSpace : std::string_view());
  escaped.reserve(text.size() + text.size() / 2);
  AppendEscaped(text, &escaped);
  std::vector<int32_t> ids;
  MergeScratch scratch;
  KVASIR_RETURN_IF_ERROR(SplitAtUserTokens(
      escaped, [&](std::string_view plain) { return EncodePlain(plain, &scratch, &ids); },
      [&](int32_t id) { ids.push_back(id); }));
  return ids;
}

Result<std::vector<int32_t>> SentencePieceTokenizer::Encode(std::string_view text) const {
  return EncodeNormalized(text, add_space_prefix_);
}

Result<std::vector<int32_t>> SentencePieceTokenizer::EncodeContinuation(
    std::string_view text) const {
  return EncodeNormalized(text, false);
}

// ---- ScoredBpe --------------------------------------------------------------------------------

Status ScoredBpe::InitModel(const VocabularyData& vocabulary) {
  owner_ = WordCache::NewOwner();
  std::vector<float> order = vocabulary.scores;
  for (const float score : order) {
    if (score != score) return DataLoss("vocabulary: a score is not a number");
  }
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  for (const float score : vocabulary.scores) {
    const auto at = std::lower_bound(order.begin(), order.end(), score, std::greater<>());
    priorities_.push_back(static_cast<uint32_t>(at - order.begin()));
  }
  for (size_t byte = 0; byte < ascii_ids_.size(); ++byte) {
    const char text = static_cast<char>(byte);
    ascii_ids_[byte] = tokens_.Find({&text, 1});
  }
  for (int32_t id = 0; id < tokens_.size(); ++id) {
    if (IsMergeable(id)) NoteInnerSpaces(tokens_.Text(id));
  }
  return Status::Ok();
}

void ScoredBpe::NoteInnerSpaces(std::string_view token) {
  for (size_t at = token.find(kSpace, LeadingSpaces(token)); at != std::string_view::npos;
       at = token.find(kSpace, at + LeadingSpaces(token.substr(at)))) {
    before_inner_space_[static_cast<unsigned char>(token[at - 1])] = true;
  }
}

// Bytes of the first word of `text`: no token reaches beyond its end.
size_t ScoredBpe::WordLength(std::string_view text) const {
  size_t at = text.find(kSpace, LeadingSpaces(text));
  while (at != std::string_view::npos &&
         before_inner_space_[static_cast<unsigned char>(text[at - 1])]) {
    at = text.find(kSpace, at + LeadingSpaces(text.substr(at)));
  }
  return std::min(at, text.size());
}

void ScoredBpe::MergeWord(std::string_view word, MergeScratch* scratch) const {
  scratch->symbols.clear();
  for (size_t offset = 0; offset < word.size();) {
    const size_t end = offset + Utf8Length(word[offset]);
    const int32_t id = end == offset + 1 ? ascii_ids_[static_cast<unsigned char>(word[offset])]
                                         : tokens_.Find(word.substr(offset, end - offset));
    scratch->symbols.push_back({static_cast<uint32_t>(offset), static_cast<uint32_t>(end), id});
    offset = end;
  }
  const auto lookup = [this, word](const Symbol& left, const Symbol& right) {
    const int32_t id = tokens_.Find(word.substr(left.begin, right.end - left.begin));
    return id < 0 ? Merge{} : Merge{priorities_[static_cast<size_t>(id)], id};
  };
  MergeSymbols(lookup, scratch);
}

Status ScoredBpe::EncodeWord(std::string_view word, MergeScratch* scratch,
                             std::vector<int32_t>* ids) const {
  WordCache& cache = WordCache::OfThisThread();
  if (cache.Append(owner_, word, ids)) return Status::Ok();
  MergeWord(word, scratch);
  const size_t before = ids->size();
  bool all_known = true;  // what an unknown run becomes depends on what is in front
  for (const Symbol& symbol : scratch->symbols) {
    if (symbol.id >= 0) {
      ids->push_back(symbol.id);
      continue;
    }
    all_known = false;
    KVASIR_RETURN_IF_ERROR(
        AppendUnknown(word.substr(symbol.begin, symbol.end - symbol.begin), ids));
  }
  if (all_known) cache.Store(owner_, word, *ids, before);
  return Status::Ok();
}

Status ScoredBpe::EncodePlain(std::string_view text, MergeScratch* scratch,
                              std::vector<int32_t>* ids) const {
  while (!text.empty()) {
    const size_t end = WordLength(text);
    KVASIR_RETURN_IF_ERROR(EncodeWord(text.substr(0, end), scratch, ids));
    text.remove_prefix(end);
  }
  return Status::Ok();
}

}  // namespace kvasir
