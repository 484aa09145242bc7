#include "retrieval/document_checks.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "engine/tokenizer/utf8.h"

namespace kvasir {
namespace {

constexpr size_t kLongestName = 64, kLongestId = 256, kLongestText = size_t{1} << 20;
constexpr size_t kLongestField = 8192;  // title, source, digest, metadata key or value
constexpr size_t kMostMetadata = 256, kMostChunks = 1'000'000;

Status CheckField(std::string_view value, const std::string& what, size_t longest) {
  if (value.size() > longest) {
    return InvalidArgument(what + " has " + std::to_string(value.size()) + " bytes, at most " +
                           std::to_string(longest) + " are allowed");
  }
  return CheckUtf8(value, what);
}

Status CheckMetadata(const Metadata& metadata) {
  if (metadata.size() > kMostMetadata) {
    return InvalidArgument("metadata has " + std::to_string(metadata.size()) +
                           " entries, at most " + std::to_string(kMostMetadata) + " are allowed");
  }
  for (const auto& [key, value] : metadata) {
    KVASIR_RETURN_IF_ERROR(CheckField(key, "a metadata key", kLongestField));
    KVASIR_RETURN_IF_ERROR(CheckField(value, "metadata." + key, kLongestField));
  }
  return Status::Ok();
}

Status CheckChunk(const NewChunk& chunk, size_t index, const Collection& collection) {
  const std::string what = "chunk " + std::to_string(index);
  KVASIR_RETURN_IF_ERROR(CheckField(chunk.title, what + ": title", kLongestField));
  KVASIR_RETURN_IF_ERROR(CheckField(chunk.text, what + ": text", kLongestText));
  if (chunk.vector.size() != static_cast<size_t>(collection.dimension)) {
    return InvalidArgument(what + ": its vector has " + std::to_string(chunk.vector.size()) +
                           " values, collection " + collection.name + " has " +
                           std::to_string(collection.dimension));
  }
  const auto finite = [](float value) { return std::isfinite(value); };
  if (!std::all_of(chunk.vector.begin(), chunk.vector.end(), finite)) {
    return InvalidArgument(what + ": a value of its vector is not finite");
  }
  return Status::Ok();
}

}  // namespace

Status CheckCollectionName(std::string_view name) {
  const auto fits = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
  };
  if (!name.empty() && name.size() <= kLongestName && std::all_of(name.begin(), name.end(), fits)) {
    return Status::Ok();
  }
  return InvalidArgument("a collection's name must be 1 to " + std::to_string(kLongestName) +
                         " letters, digits, '_', '.' or '-'");
}

Status CheckDocumentId(std::string_view id) {
  if (id.empty()) return InvalidArgument("a document's id must not be empty");
  KVASIR_RETURN_IF_ERROR(CheckField(id, "a document's id", kLongestId));
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; };
  if (std::any_of(id.begin(), id.end(), control)) {
    return InvalidArgument("a document's id must not hold control characters");
  }
  return Status::Ok();
}

Status CheckNewDocument(const NewDocument& document, const Collection& collection) {
  KVASIR_RETURN_IF_ERROR(CheckDocumentId(document.id));
  KVASIR_RETURN_IF_ERROR(CheckField(document.title, "title", kLongestField));
  KVASIR_RETURN_IF_ERROR(CheckField(document.source, "source", kLongestField));
  KVASIR_RETURN_IF_ERROR(CheckField(document.content_digest, "content_digest", kLongestField));
  KVASIR_RETURN_IF_ERROR(CheckMetadata(document.metadata));
  if (document.chunks.empty() || document.chunks.size() > kMostChunks) {
    return InvalidArgument("document " + document.id + " has " +
                           std::to_string(document.chunks.size()) + " chunks, it must have 1 to " +
                           std::to_string(kMostChunks));
  }
  for (size_t i = 0; i < document.chunks.size(); ++i) {
    KVASIR_RETURN_IF_ERROR(CheckChunk(document.chunks[i], i, collection));
  }
  return Status::Ok();
}

Status CheckSameCollection(const Collection& stored, const Collection& wanted) {
  const std::string differs =
      stored.model_digest != wanted.model_digest ? "model"
      : stored.embedder != wanted.embedder       ? "embedding model"
      : stored.dimension != wanted.dimension     ? "vector dimension"
      : stored.system_text != wanted.system_text ? "system text"
      : stored.ingestion != wanted.ingestion
          ? "ingestion condition ('" + stored.ingestion + "', not '" + wanted.ingestion + "')"
      : stored.primer != wanted.primer ? "primer"
      : stored.codec != wanted.codec
          ? "KV codec ('" + stored.codec + "', not '" + wanted.codec + "')"
          : "";
  if (differs.empty()) return Status::Ok();
  return FailedPrecondition("collection " + stored.name + " was made with another " + differs +
                            ": use another name, or delete it and ingest again");
}

}  // namespace kvasir
