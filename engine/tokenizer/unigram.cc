#include <algorithm>
#include <limits>

#include "engine/tokenizer/sentence_piece.h"
#include "engine/tokenizer/utf8.h"

namespace kvasir {
namespace {

constexpr float kUnknownPenalty = 10.0f;  // below the lowest score, as sentencepiece has it

// The best way to the end of a piece.
struct Best {
  double score = -std::numeric_limits<double>::infinity();
  uint32_t begin = 0;  // of its last token
  int32_t id = -1;     // -1 = one character without a token
  bool reached = false;
};

void Offer(double score, size_t begin, int32_t id, Best* best) {
  if (best->reached && score <= best->score) return;
  *best = {score, static_cast<uint32_t>(begin), id, true};
}

}  // namespace

Status Unigram::InitModel(const VocabularyData& vocabulary) {
  scores_ = vocabulary.scores;
  float lowest = 0.0f;
  for (int32_t id = 0; id < tokens_.size(); ++id) {
    const float score = scores_[static_cast<size_t>(id)];
    if (score != score) return DataLoss("vocabulary: a score is not a number");
    if (Kind(id) != TokenKind::kNormal) continue;
    trie_.Insert(tokens_.Text(id), id);
    lowest = std::min(lowest, score);
  }
  unknown_score_ = lowest - kUnknownPenalty;
  return Status::Ok();
}

Status Unigram::EncodePlain(std::string_view text, MergeScratch* scratch,
                            std::vector<int32_t>* ids) const {
  std::vector<Best> best(text.size() + 1);
  best[0] = {0.0, 0, -1, true};
  for (size_t begin = 0; begin < text.size();) {
    const size_t length = Utf8Length(text[begin]);
    bool single = false;
    trie_.ForEachPrefix(text.substr(begin), [&](size_t bytes, int32_t id) {
      Offer(best[begin].score + scores_[static_cast<size_t>(id)], begin, id, &best[begin + bytes]);
      single |= bytes == length;
    });
    if (!single) Offer(best[begin].score + unknown_score_, begin, -1, &best[begin + length]);
    begin += length;
  }
  scratch->symbols.clear();
  for (size_t end = text.size(); end > 0; end = best[end].begin) {
    scratch->symbols.push_back({best[end].begin, static_cast<uint32_t>(end), best[end].id});
  }
  std::reverse(scratch->symbols.begin(), scratch->symbols.end());
  for (const Symbol& symbol : scratch->symbols) {
    if (symbol.id >= 0) {
      ids->push_back(symbol.id);
    } else {
      KVASIR_RETURN_IF_ERROR(
          AppendUnknown(text.substr(symbol.begin, symbol.end - symbol.begin), ids));
    }
  }
  return Status::Ok();
}

}  // namespace kvasir
