// Keys and values of DocumentStore's records.
//   "c/" name                          Collection
//   "d/" id                            Document
//   "k/" chunk id, 8 bytes big-endian  Chunk
//   "l/" collection 0x00 id            empty: the documents of a collection, ascending
//   "v/" collection 0x00 chunk id      vector
//   "n/chunk"                          lowest chunk id never given out
//   "p/" primer id, chunk id           empty: the chunk's record names this primer (SetPrimers)
// Thread safety: free functions without state.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"
#include "retrieval/document_store.h"

namespace kvasir {

inline constexpr std::string_view kCollectionPrefix = "c/", kChunkPrefix = "k/",
                                  kCounterKey = "n/chunk", kBehindPrefix = "p/";

std::string CollectionKey(std::string_view name);
std::string DocumentKey(std::string_view id);
std::string ChunkKeyOf(ChunkId id);
std::string ListPrefix(std::string_view collection);
std::string VectorPrefix(std::string_view collection);
std::string VectorKey(std::string_view collection, ChunkId id);
std::string BehindPrefixOf(ChunkId primer);
std::string BehindKey(ChunkId primer, ChunkId chunk);
// The primer of a "p/" key; -1 if the key is too short.
ChunkId PrimerOf(std::string_view behind_key);
// The chunk id at the end of a key; -1 if the key is too short.
ChunkId ChunkIdOf(std::string_view key);

std::string EncodeCollection(const Collection& collection);
Result<Collection> DecodeCollection(std::string_view bytes, std::string_view name);
std::string EncodeDocument(const Document& document);
Result<Document> DecodeDocument(std::string_view bytes, std::string_view id);
std::string EncodeChunk(const Chunk& chunk);
Result<Chunk> DecodeChunk(std::string_view bytes, ChunkId id);
std::string EncodeVector(ChunkId id, const std::vector<float>& vector);
Result<std::vector<float>> DecodeVector(std::string_view bytes, ChunkId id);
std::string EncodeCounter(ChunkId next);
Result<ChunkId> DecodeCounter(std::string_view bytes);

}  // namespace kvasir
