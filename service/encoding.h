// Encoding: what stands before a chunk while its KV is computed, by the collection's ingestion
// condition.
//
//   bare       nothing: the chunk begins at position 0
//   anchor     the anchor
//   fixed      the anchor and one passage, the same for the whole collection (the default)
//   own        the anchor and the chunk before it in its document; the first one: fixed
//   neighbour  the anchor and the nearest other chunk of the collection; without one: fixed
// Only the chunk's slice of the KV is kept. A primer costs ingestion time and nothing at request
// time; what it is worth is in the design of fusing: a chunk behind a primer looks like the middle
// of a context, which it mostly is. All of the context is part of the key (Runtime::KeyOf).
// Plain values and functions without state: thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cache/chunk_key.h"
#include "engine/tokenizer/chat_template.h"
#include "kernels/core/status.h"
#include "retrieval/document_store.h"

namespace kvasir {

enum class IngestionCondition : uint8_t {
  kBare,
  kAnchor,
  kPrimerFixed,
  kPrimerOwn,
  kPrimerNeighbour,
};

std::string_view IngestionName(IngestionCondition condition);  // "bare", "anchor", "fixed", ...
// A name, or "primer" for fixed. kInvalidArgument names the choices.
Result<IngestionCondition> ParseIngestion(std::string_view name);
inline bool HasPrimer(IngestionCondition condition) {
  return condition >= IngestionCondition::kPrimerFixed;
}

// No codec of its own: that of cache.codec.
inline constexpr KvCodec kConfiguredCodec{};

// The token ids before a chunk while it is encoded. Both empty: it begins at position 0.
struct ChunkContext {
  std::vector<int32_t> anchor, primer;
  KvCodec codec = kConfiguredCodec;  // of its KV behind them; at position 0 always 16 bits

  bool empty() const { return anchor.empty() && primer.empty(); }
  friend bool operator==(const ChunkContext&, const ChunkContext&) = default;
};

// Bounds of collection.primer_tokens. Which length is best depends on the model (kvasir eval):
// about 1,000 for SmolLM2-135M, 256 for Qwen2.5-Coder-0.5B. The cost is ingestion's alone.
inline constexpr int64_t kLeastPrimerTokens = 16, kMaxPrimerTokens = 2048;

// A primer's token ids: one passage in the template a paragraph of the text (blank lines between
// them), as many as fit `limit`; if not even the first does, its first limit - 1 ids and its last
// one, which ends the passage.
Result<std::vector<int32_t>> RenderPrimer(const ChatTemplate& chat, std::string_view text,
                                          size_t limit);
// As many as wanted, at most a quarter of the context.
size_t PrimerLimit(int64_t wanted, int32_t max_context);

// How chunks of one collection are encoded, or documents that a request gives as text.
struct Encoding {
  IngestionCondition condition = IngestionCondition::kAnchor;
  std::vector<int32_t> primer;       // the fixed one; empty without a primer
  KvCodec codec = kConfiguredCodec;  // of stored KV

  // Of a chunk; `own_primer` stands in the place of the fixed one if it is not empty.
  ChunkContext Context(const std::vector<int32_t>& anchor,
                       const std::vector<int32_t>& own_primer = {}) const;
};

// kFailedPrecondition: a condition or a codec that this program does not know.
Result<Encoding> EncodingOf(const Collection& collection);

// The primer that a stored chunk has for itself (own, neighbour). Empty: it has none, or that
// chunk is gone or unreadable; then the fixed primer stands in.
std::vector<int32_t> OwnPrimer(const DocumentStore& documents, const Chunk& chunk);

// A collection as its chunks' KV sees it.
struct CollectionContext {
  std::string name;  // also the namespace of its KV
  std::vector<int32_t> anchor;
  Encoding encoding;
};

// By `neighbour` a chunk's KV depends on the text of other documents, so all who may read one chunk
// must be allowed to read all. kFailedPrecondition where that is not plain: several API keys, or a
// cache_salt.
Status CheckNeighbourAccess(const Encoding& encoding, const std::string& collection,
                            size_t api_keys, bool salted);

}  // namespace kvasir
