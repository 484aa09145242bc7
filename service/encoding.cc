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

Result<std::vector<int32_t>> RenderPrimer(const ChatTemplate& chat, std::string_view text,
                                          size_t limit) {
  std::vector<int32_t> primer;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find("\n\n", begin), text.size());
    const std::string_view passage = text.substr(begin, end - begin);
    begin = end + 2;
    if (passage.find_first_not_of(" \n") == std::string_view::npos) continue;
    KVASIR_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, chat.RenderDocument("", passage));
    if (!primer.empty() && primer.size() + ids.size() > limit) break;
    primer.insert(primer.end(), ids.begin(), ids.end());
  }
  if (primer.empty()) return InvalidArgument("the primer holds no text");
  if (primer.size() > limit) {
    primer[limit - 1] = primer.back();
    primer.resize(limit);
  }
  return primer;
}

size_t PrimerLimit(int64_t wanted, int32_t max_context) {
  return static_cast<size_t>(std::clamp<int64_t>(max_context / 4, kLeastPrimerTokens, wanted));
}

ChunkContext Encoding::Context(const std::vector<int32_t>& anchor,
                               const std::vector<int32_t>& own_primer) const {
  if (condition == IngestionCondition::kBare) return {};
  return {anchor, own_primer.empty() ? primer : own_primer, codec};
}

Result<Encoding> EncodingOf(const Collection& collection) {
  const Result<IngestionCondition> condition = ParseIngestion(collection.ingestion);
  if (!condition.ok()) {
    return FailedPrecondition("collection '" + collection.name + "' was made with the condition '" +
                              collection.ingestion +
                              "', which this program does not know: use the program that made it, "
                              "or delete the collection and ingest again");
  }
  if (collection.codec.empty()) return Encoding{*condition, collection.primer, kConfiguredCodec};
  const Result<KvCodec> codec = ParseKvCodec(collection.codec);
  if (!codec.ok()) {
    return FailedPrecondition("collection '" + collection.name + "' stores KV as '" +
                              collection.codec +
                              "', which this program does not know: use the program that made it, "
                              "or delete the collection and ingest again");
  }
  return Encoding{*condition, collection.primer, *codec};
}

std::vector<int32_t> OwnPrimer(const DocumentStore& documents, const Chunk& chunk) {
  if (chunk.primer == 0) return {};
  Result<Chunk> primer = documents.GetChunk(chunk.primer);
  return primer.ok() ? std::move(primer->token_ids) : std::vector<int32_t>();
}

Status CheckNeighbourAccess(const Encoding& encoding, const std::string& collection,
                            size_t api_keys, bool salted) {
  const bool many_keys = api_keys > 1;
  if (encoding.condition != IngestionCondition::kPrimerNeighbour || (!many_keys && !salted)) {
    return Status::Ok();
  }
  std::string message = "collection '" + collection;
  message
      .append("' has the ingestion condition 'neighbour', by which the KV of a chunk depends on ")
      .append("the text of other documents, ");
  if (many_keys) {
    message.append("and server.api_keys holds ").append(std::to_string(api_keys));
    message.append(" keys, whose owners may have different rights: keep one key");
  } else {
    message.append("and cache_salt asks to share nothing with others: leave cache_salt out");
  }
  message.append(", or make the collection anew with the condition own or fixed");
  return FailedPrecondition(message);
}

}  // namespace kvasir
