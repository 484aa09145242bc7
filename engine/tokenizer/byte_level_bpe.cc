#include "engine/tokenizer/byte_level_bpe.h"

#include <utility>

#include "engine/tokenizer/utf8.h"
#include "engine/tokenizer/word_cache.h"

namespace kvasir {
namespace {

// GPT-2's alphabet writes every byte as a printable character: itself if it is one, else U+0100
// and up in the order of bytes.
bool IsPrintable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// The byte that each character of the alphabet (below U+0144) stands for, -1 if none.
std::array<int16_t, 0x144> MakeAlphabet() {
  std::array<int16_t, 0x144> bytes{};
  bytes.fill(-1);
  int16_t shifted = 0x100;
  for (int16_t byte = 0; byte < 256; ++byte) {
    bytes[static_cast<size_t>(IsPrintable(byte) ? byte : shifted++)] = byte;
  }
  return bytes;
}

// The bytes that a token stands for; a text outside the alphabet stands for itself.
std::string FromAlphabet(const std::string& token) {
  static const std::array<int16_t, 0x144> kBytes = MakeAlphabet();
  if (FindInvalidUtf8(token) != token.size()) return token;
  std::string bytes;
  for (size_t offset = 0; offset < token.size();) {
    const char32_t c = NextCodePoint(token, &offset);
    if (c >= kBytes.size() || kBytes[c] < 0) return token;
    bytes.push_back(static_cast<char>(kBytes[c]));
  }
  return bytes;
}

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> ByteLevelBpe::Create(const VocabularyData& vocabulary) {
  auto made = std::make_unique<ByteLevelBpe>();
  made->owner_ = WordCache::NewOwner();
  KVASIR_ASSIGN_OR_RETURN(made->pre_, PreTokenizer::Create(vocabulary.pre));
  KVASIR_RETURN_IF_ERROR(made->Init(vocabulary));
  for (size_t byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    made->byte_ids_[byte] = made->tokens_.Find({&text, 1});
  }
  KVASIR_RETURN_IF_ERROR(made->AddMerges(vocabulary.merges));
  return std::unique_ptr<Tokenizer>(std::move(made));
}

std::string ByteLevelBpe::SearchForm(const std::string& token, TokenKind kind) const {
  return kind == TokenKind::kNormal ? FromAlphabet(token) : token;
}

Status ByteLevelBpe::AddMerges(const std::vector<std::string>& merges) {
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    Status status = AddMerge(merges[rank], static_cast<uint32_t>(rank));
    if (!status.ok()) {
      return DataLoss("vocabulary: merge " + std::to_string(rank) + " " + status.message());
    }
  }
  return Status::Ok();
}

Status ByteLevelBpe::AddMerge(std::string_view merge, uint32_t rank) {
  const size_t space = merge.find(' ', 1);
  if (space == std::string_view::npos || space + 1 == merge.size()) {
    return DataLoss("is not of the form \"left right\"");
  }
  const std::string left = FromAlphabet(std::string(merge.substr(0, space)));
  const std::string right = FromAlphabet(std::string(merge.substr(space + 1)));
  const int32_t left_id = tokens_.Find(left), right_id = tokens_.Find(right);
  const int32_t joined = tokens_.Find(left + right);
  if (left_id < 0 || right_id < 0 || joined < 0) return DataLoss("names a token that is not there");
  merges_.Insert(PairKey(left_id, right_id), Merge{rank, joined});
  return Status::Ok();
}

void ByteLevelBpe::AppendWord(std::string_view word, MergeScratch* scratch,
                              std::vector<int32_t>* ids) const {
  if (pre_->ignores_merges()) {
    const int32_t id = tokens_.Find(word);
    if (id >= 0) return ids->push_back(id);
  }
  WordCache& cache = WordCache::OfThisThread();
  if (cache.Append(owner_, word, ids)) return;
  const size_t before = ids->size();
  scratch->symbols.clear();
  for (uint32_t i = 0; i < word.size(); ++i) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(word[i])];
    if (id >= 0) scratch->symbols.push_back({i, i + 1, id});
  }
  const auto lookup = [this](const Symbol& left, const Symbol& right) {
    const Merge* merge = merges_.Find(PairKey(left.id, right.id));
    return merge == nullptr ? Merge{} : *merge;
  };
  MergeSymbols(lookup, scratch);
  for (const Symbol& symbol : scratch->symbols) ids->push_back(symbol.id);
  cache.Store(owner_, word, *ids, before);
}

Status ByteLevelBpe::EncodePlain(std::string_view text, MergeScratch* scratch,
                                 std::vector<int32_t>* ids) const {
  std::string normalized;
  if (pre_->normalizes()) {
    KVASIR_ASSIGN_OR_RETURN(normalized, NormalizeNfc(text));
    text = normalized;
  }
  std::vector<std::string_view> words;
  KVASIR_RETURN_IF_ERROR(pre_->Split(text, &words));
  for (const std::string_view word : words) AppendWord(word, scratch, ids);
  return Status::Ok();
}

Result<std::vector<int32_t>> ByteLevelBpe::Encode(std::string_view text) const {
  KVASIR_RETURN_IF_ERROR(CheckText(text));
  std::vector<int32_t> ids;
  MergeScratch scratch;
  KVASIR_RETURN_IF_ERROR(SplitAtUserTokens(
      text, [&](std::string_view plain) { return EncodePlain(plain, &scratch, &ids); },
      [&](int32_t id) { ids.push_back(id); }));
  return ids;
}

}  // namespace kvasir
