#include "service/encoding.h"

#include <algorithm>
#include <array>

namespace kvasir {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"bare", "anchor", "fixed", "own", "neighbour"};

}  // namespace

std::string_view IngestionName(IngestionCondition condition) {
  return kNames.at(static_cast<size_t>(condition));
}

Result<IngestionCondition> ParseIngestion(std::string_view name) {
  if (name == "primer") return IngestionCondition::kPrimerFixed;
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<IngestionCondition>(i);
  }
  std::string message = "no ingestion condition '";
  message.append(name).append("': use bare, anchor, fixed (or primer), own or neighbour");
  return InvalidArgument(message);
}

Result<std::vector<int32_t>> RenderPrimer(const ChatTemplate& chat, std::string_view text) {
  std::vector<int32_t> primer;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find("\n\n", begin), text.size());
    const std::string_view passage = text.substr(begin, end - begin);
    begin = end + 2;
    if (passage.find_first_not_of(" \n") == std::string_view::npos) continue;
    KVASIR_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, chat.RenderDocument("", passage));
    primer.insert(primer.end(), ids.begin(), ids.end());
  }
  if (primer.size() > kMaxPrimerTokens) {
    primer[kMaxPrimerTokens - 1] = primer.back();
    primer.resize(kMaxPrimerTokens);
  }
  return primer;
}

ChunkContext Encoding::Context(const std::vector<int32_t>& anchor) const {
  if (condition == IngestionCondition::kBare) return {};
  return {anchor, primer};
}

Result<Encoding> EncodingOf(const Collection& collection) {
  const Result<IngestionCondition> condition = ParseIngestion(collection.ingestion);
  if (!condition.ok()) {
    return FailedPrecondition("collection '" + collection.name + "' was made with the condition '" +
                              collection.ingestion +
                              "', which this program does not know: use the program that made it, "
                              "or delete the collection and ingest again");
  }
  return Encoding{*condition, collection.primer};
}

}  // namespace kvasir
