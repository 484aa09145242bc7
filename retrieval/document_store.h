// DocumentStore: collections, documents, chunks and vectors as records of an OrderedStore.
//
// Every change is one Write of the store, so that a reader or a crash sees the old version of a
// document whole or the new one whole. Chunk ids are never used twice. Records carry a format
// version and a checksum; one that is torn, foreign or newer is kDataLoss or kFailedPrecondition
// and is never served.
// Thread safety: all methods from any thread; writers wait for each other. The OrderedStore must
// outlive this and is not written by anybody else under these key prefixes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/ordered_store.h"
#include "kernels/core/status.h"

namespace kvasir {

using ChunkId = int64_t;
using Metadata = std::map<std::string, std::string>;

// Documents that share a model and an anchor. The fields but `created_ms` are given at creation
// and never change: stored token ids and KV depend on them.
struct Collection {
  std::string name;          // 1-64 of [A-Za-z0-9_.-]
  std::string model_digest;  // of the model whose tokenizer made token_ids
  std::string embedder;      // Embedder::identity()
  int32_t dimension = 0;     // of the vectors
  std::string system_text;   // anchor: the system text behind which chunks are encoded
  int64_t created_ms = 0;    // Unix time, set by the store
  // What chunks are encoded behind besides the anchor, and the token ids of the fixed primer, if
  // there is one (service/encoding.h; not interpreted here). Records of version 1 had the anchor.
  std::string ingestion = "anchor";
  std::vector<int32_t> primer = {};
  // Of stored chunk KV, by name (not interpreted here); "" in records before version 3, and then it
  // is the configured one.
  std::string codec = {};

  friend bool operator==(const Collection&, const Collection&) = default;
};

struct Document {
  std::string id;  // unique over all collections; 1-256 bytes, no control characters
  std::string collection;
  std::string title;
  std::string source;          // path or URI, may be empty
  std::string content_digest;  // of everything that makes the chunks, see ContentDigest
  int64_t version = 0;         // 1, 2, ...
  Metadata metadata;
  int64_t created_ms = 0;       // of version 1
  int64_t updated_ms = 0;       // of this version
  int64_t tokens = 0;           // sum over the chunks
  std::vector<ChunkId> chunks;  // in order

  friend bool operator==(const Document&, const Document&) = default;
};

struct Chunk {
  ChunkId id = 0;
  std::string document_id;
  int32_t ordinal = 0;  // 0-based place in the document
  std::string title, text;
  std::vector<int32_t> token_ids;  // as it stands in a prompt
  // The chunk behind which its KV is encoded: the one before it in the document, or a neighbour;
  // 0 = none of its own. It may be gone.
  ChunkId primer = 0;

  friend bool operator==(const Chunk&, const Chunk&) = default;
};

struct NewChunk {
  std::string title, text;
  std::vector<int32_t> token_ids;
  std::vector<float> vector;     // [dimension]
  bool behind_previous = false;  // its primer is the chunk before it, if there is one
};

struct PrimerChoice {
  ChunkId chunk = 0, primer = 0;
};

struct NewDocument {
  std::string id;  // empty = a random one is made
  std::string collection;
  std::string title, source, content_digest;
  Metadata metadata;
  std::vector<NewChunk> chunks;
};

struct PutOutcome {
  std::string id;
  int64_t version = 0;
  bool unchanged = false;        // same content_digest: nothing was written
  std::vector<ChunkId> added;    // in the order of NewDocument::chunks
  std::vector<ChunkId> removed;  // of the version before
};

struct DocumentPage {
  std::vector<Document> documents;   // ascending by id
  std::vector<std::string> corrupt;  // ids of records that do not decode; Delete or Put heals them
  std::string next_after;            // "" = no more
};

class DocumentStore {
 public:
  static Result<std::unique_ptr<DocumentStore>> Open(OrderedStore& store);

  // Creates it or, if it is there, checks that all fields but created_ms are the same:
  // kFailedPrecondition names what differs. Returns what is stored.
  Result<Collection> EnsureCollection(const Collection& collection);
  Result<Collection> GetCollection(std::string_view name) const;  // kNotFound
  Result<std::vector<Collection>> ListCollections() const;        // ascending by name
  // With all its documents; large ones in several writes, the collection's record last, so that a
  // crash leaves it deletable again. kNotFound. Returns how many documents went.
  Result<int64_t> DeleteCollection(std::string_view name);

  // Adds a document or switches to its new version. kNotFound: no such collection; kAlreadyExists:
  // the id belongs to another collection; kInvalidArgument: a bad id, vector or field, by name.
  Result<PutOutcome> Put(NewDocument document);
  Result<Document> Get(std::string_view id) const;  // kNotFound
  // Whether `id` is stored with this digest: lets ingestion skip parsing and embedding.
  Result<bool> IsUnchanged(std::string_view id, std::string_view content_digest) const;
  // Returns the ids of the chunks that went with it. kNotFound. Also removes a corrupt one.
  Result<std::vector<ChunkId>> Delete(std::string_view id);
  // `limit` 1-1000 documents with id > `after`.
  Result<DocumentPage> List(std::string_view collection, std::string_view after,
                            int32_t limit) const;

  Result<Chunk> GetChunk(ChunkId id) const;  // kNotFound
  Result<std::vector<Chunk>> GetChunks(std::string_view document_id) const;
  Result<std::vector<float>> GetVector(std::string_view collection, ChunkId id) const;  // kNotFound

  // Puts chunks behind primers of any document (0 = none), in one write. A chunk that is gone is
  // left out; a primer that is gone becomes none.
  Status SetPrimers(std::span<const PrimerChoice> choices);
  // The chunks that SetPrimers put behind this one, which may be gone. Those behind the chunk
  // before them are not listed: they come and go with it.
  Result<std::vector<Chunk>> ChunksBehind(ChunkId primer) const;
  // All chunks that SetPrimers put behind one that is gone by now: what a crash between a deletion
  // and the choice of other primers leaves.
  Result<std::vector<Chunk>> ChunksBehindNothing() const;
  // All vectors of a collection, ascending by chunk id, until `visit` says false. Records that do
  // not decode are left out and counted in *corrupt unless null.
  Status ForEachVector(std::string_view collection,
                       const std::function<bool(ChunkId, std::span<const float>)>& visit,
                       int64_t* corrupt = nullptr) const;
  Status ForEachDocument(std::string_view collection,
                         const std::function<bool(const Document&)>& visit,
                         int64_t* corrupt = nullptr) const;

 private:
  DocumentStore(OrderedStore& store, ChunkId next_chunk) : store_(store), next_chunk_(next_chunk) {}
  Result<std::optional<Document>> Find(std::string_view id) const;
  // Find, or what can be told of a corrupt document: its collection and chunks, version 0.
  Result<std::optional<Document>> FindOrSalvage(std::string_view id) const;
  Result<std::optional<Document>> Salvage(std::string_view id) const;
  Status Erase(const Document& document);
  WriteOperations Switch(const NewDocument& source, const Document* before, Document* document);
  // Chunks named by "p/" keys; `gone`: only those whose primer is not there.
  Result<std::vector<Chunk>> ReadBehind(std::string_view prefix, bool gone) const;
  // Deletes the records of a document's chunks.
  void DeleteChunks(const Document& document, WriteOperations* out) const;

  OrderedStore& store_;
  mutable std::mutex mutex_;  // of writers
  ChunkId next_chunk_;        // guarded by mutex_; lowest id never given out
};

}  // namespace kvasir
