#include "engine/vocabulary_check.h"

#include <algorithm>
#include <string>
#include <string_view>

namespace kvasir {
namespace {

// As it may stand in a message: whatever a file holds as a token.
std::string Shown(std::string_view token) {
  constexpr char kHex[] = "0123456789abcdef";
  constexpr size_t kLongest = 40;
  std::string out = "'";
  for (const char c : token.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  if (token.size() > kLongest) out += "...";
  return out += "'";
}

void Add(std::string difference, std::string* differences) {
  if (!differences->empty()) differences->append("; ");
  differences->append(difference);
}

void CompareIds(const char* what, int32_t ours, int32_t theirs, std::string* differences) {
  if (ours == theirs) return;
  std::string text = what;
  text.append(" is token ").append(std::to_string(theirs));
  Add(text.append(" instead of ").append(std::to_string(ours)), differences);
}

void CompareTexts(const VocabularyData& ours, const VocabularyData& theirs,
                  std::string* differences) {
  const size_t count = std::min(ours.tokens.size(), theirs.tokens.size());
  size_t first = count, different = 0;
  for (size_t id = 0; id < count; ++id) {
    if (ours.tokens[id] == theirs.tokens[id]) continue;
    first = std::min(first, id);
    ++different;
  }
  if (different == 0) return;
  std::string text = std::to_string(different);
  text.append(" tokens have another text, the first of them ").append(std::to_string(first));
  text.append(", ").append(Shown(theirs.tokens[first])).append(" instead of ");
  Add(text.append(Shown(ours.tokens[first])), differences);
}

}  // namespace

Status CheckSameVocabulary(const Model& model, const Model& draft) {
  const VocabularyData &ours = model.vocabulary, &theirs = draft.vocabulary;
  std::string differences;
  if (model.config.vocab != draft.config.vocab) {
    std::string text = std::to_string(draft.config.vocab);
    text.append(" tokens instead of ").append(std::to_string(model.config.vocab));
    Add(std::move(text), &differences);
  }
  CompareTexts(ours, theirs, &differences);
  CompareIds("the begin", ours.bos, theirs.bos, &differences);
  CompareIds("the end", ours.eos, theirs.eos, &differences);
  if (differences.empty()) return Status::Ok();
  std::string message = "draft model ";
  message.append(draft.path).append(" has another vocabulary than ").append(model.path);
  message.append(": ").append(differences);
  return InvalidArgument(message.append(": choose a draft model of the same family, or none"));
}

}  // namespace kvasir
