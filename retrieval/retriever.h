// Retriever: a question to the chunks that may answer it.
//
// Owns one VectorIndex a collection, filled from the DocumentStore at Open, and is the one door for
// changes, so that index and store never differ: Put and Delete change the store first (durable),
// then the index. A chunk that was deleted, or replaced by a new version, and acknowledged is never
// returned again.
// Thread safety: all methods from any thread; searches run in parallel but for the embedding of
// the query. Store and embedder must outlive it.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kernels/core/status.h"
#include "retrieval/document_store.h"
#include "retrieval/embedder.h"
#include "retrieval/vector_index.h"

namespace kvasir {

class NearDuplicates;

struct RetrieverOptions {
  // Chunks whose texts share at least this part of their word pairs (Jaccard) with a better hit
  // are dropped as duplicates; > 1 = exact duplicates only.
  double duplicate_overlap = 0.9;
  VectorIndexOptions index;  // `dimension` is the collection's own
};

// All given conditions must hold.
struct SearchFilter {
  std::vector<std::string> document_ids;  // empty = any
  Metadata metadata;                      // key and value equal

  bool empty() const { return document_ids.empty() && metadata.empty(); }
};

inline constexpr int32_t kMaxTopK = 256;

struct SearchRequest {
  std::string collection;
  std::string query;
  int32_t top_k = 5;        // 1 to kMaxTopK
  float min_score = -1.0f;  // cosine; hits below are left out
  SearchFilter filter;
};

struct SearchHit {
  float score = 0.0f;  // cosine of query and chunk
  Chunk chunk;
  std::string document_title, source;
  int64_t version = 0;  // of the document
};

class Retriever {
 public:
  // Reads all vectors of all collections made by this embedder. A collection of another embedder
  // stays closed: searching or changing it is kFailedPrecondition, the others work.
  static Result<std::unique_ptr<Retriever>> Open(DocumentStore& store, Embedder& embedder,
                                                 const RetrieverOptions& options = {});
  ~Retriever();

  // Creates the collection or checks that it fits; sets `embedder` and `dimension` itself.
  Result<Collection> EnsureCollection(Collection collection);
  Result<int64_t> DeleteCollection(std::string_view name);

  // DocumentStore::Put; chunks without a vector are embedded here (their title, newline, text).
  Result<PutOutcome> Put(NewDocument document);
  Result<std::vector<ChunkId>> Delete(std::string_view id);

  // Best first; kNotFound: no such collection, kInvalidArgument: top_k, an empty query.
  Result<std::vector<SearchHit>> Search(const SearchRequest& request);

  // The stored chunk nearest to one of a collection, by their vectors, among those of another text;
  // 0 = there is none. kNotFound: no such chunk.
  Result<ChunkId> Neighbour(std::string_view collection, ChunkId chunk) const;

  struct Stats {
    int64_t collections = 0, documents = 0, chunks = 0;
    size_t index_bytes = 0;
    int64_t corrupt_records = 0;  // met since Open and left out
  };
  Stats stats() const;

 private:
  struct Shelf;  // one collection: index, and which document each chunk is of
  Retriever(DocumentStore& store, Embedder& embedder, const RetrieverOptions& options);
  Status FillShelf(const Collection& collection, Shelf* shelf);
  Status OpenShelf(const Collection& collection);
  Result<std::shared_ptr<Shelf>> Find(std::string_view collection) const;
  Status EmbedMissing(std::vector<NewChunk>* chunks);
  Result<std::vector<SearchHit>> Collect(const SearchRequest& request, const Shelf& shelf,
                                         const std::vector<float>& query);

  void AppendHit(const VectorHit& candidate, const Shelf& shelf, NearDuplicates* seen,
                 std::vector<SearchHit>* hits);

  DocumentStore& store_;
  Embedder& embedder_;
  RetrieverOptions options_;
  std::atomic<int64_t> corrupt_records_ = 0;
  std::mutex writers_;               // Put, Delete and collection changes, one at a time
  mutable std::shared_mutex mutex_;  // guards shelves_
  std::map<std::string, std::shared_ptr<Shelf>, std::less<>> shelves_;
  std::map<std::string, std::string, std::less<>> closed_;  // name -> why
};

}  // namespace kvasir
