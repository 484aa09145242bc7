#include "retrieval/retriever.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "retrieval/near_duplicate.h"

namespace kvasir {
namespace {

// Vectors that go into an index at a time while it is filled.
constexpr size_t kFillRows = 8192;

// Candidates looked at for k hits: room for duplicates and for chunks that were deleted meanwhile.
constexpr int32_t kMostCandidates = 8192;  // a search gives up on collections of one text repeated
int32_t FirstFetch(int32_t top_k) { return 2 * top_k + 16; }

Status CheckSearch(const SearchRequest& request) {
  if (request.top_k < 1 || request.top_k > kMaxTopK) {
    return InvalidArgument("top_k must be 1 to " + std::to_string(kMaxTopK) + ", found " +
                           std::to_string(request.top_k));
  }
  if (request.query.find_first_not_of(" \t\r\n") == std::string::npos) {
    return InvalidArgument("the query is empty");
  }
  return Status::Ok();
}

bool Matches(const Metadata& wanted, const Metadata& found) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& entry) {
    const auto at = found.find(entry.first);
    return at != found.end() && at->second == entry.second;
  });
}

}  // namespace

// What a search needs of one collection. `documents` holds no chunk list twice: owner maps each
// live chunk to its document.
struct Retriever::Shelf {
  explicit Shelf(std::unique_ptr<VectorIndex> i) : index(std::move(i)) {}

  std::unique_ptr<VectorIndex> index;
  mutable std::shared_mutex mutex;  // guards what follows
  std::map<std::string, Document, std::less<>> documents;
  std::unordered_map<ChunkId, const Document*> owner;  // into `documents`

  void Insert(const Document& document) {
    std::unique_lock lock(mutex);
    Document& stored = documents[document.id] = document;
    for (const ChunkId chunk : stored.chunks) owner[chunk] = &stored;
  }
  // Chunks stop being findable before their vectors go.
  void Forget(std::span<const ChunkId> chunks) {
    std::unique_lock lock(mutex);
    for (const ChunkId chunk : chunks) owner.erase(chunk);
  }
  void Erase(std::string_view id) {
    std::unique_lock lock(mutex);
    const auto found = documents.find(id);
    if (found == documents.end()) return;
    for (const ChunkId chunk : found->second.chunks) owner.erase(chunk);
    documents.erase(found);
  }

  // Chunks that a filter lets through, as of now.
  std::unordered_set<ChunkId> Allowed(const SearchFilter& filter) const {
    std::unordered_set<ChunkId> allowed;
    const auto add = [&](const Document& document) {
      if (Matches(filter.metadata, document.metadata)) {
        allowed.insert(document.chunks.begin(), document.chunks.end());
      }
    };
    std::shared_lock lock(mutex);
    if (filter.document_ids.empty()) {
      for (const auto& [id, document] : documents) add(document);
    }
    for (const std::string& id : filter.document_ids) {
      if (const auto found = documents.find(id); found != documents.end()) add(found->second);
    }
    return allowed;
  }

  // Fills title, source and version; false if the chunk is no longer there.
  bool Describe(ChunkId chunk, SearchHit* hit) const {
    std::shared_lock lock(mutex);
    const auto found = owner.find(chunk);
    if (found == owner.end()) return false;
    hit->document_title = found->second->title;
    hit->source = found->second->source;
    hit->version = found->second->version;
    return true;
  }
};

Retriever::Retriever(DocumentStore& store, Embedder& embedder, const RetrieverOptions& options)
    : store_(store), embedder_(embedder), options_(options) {}
Retriever::~Retriever() = default;

Result<std::unique_ptr<Retriever>> Retriever::Open(DocumentStore& store, Embedder& embedder,
                                                   const RetrieverOptions& options) {
  std::unique_ptr<Retriever> retriever(new Retriever(store, embedder, options));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Collection> collections, store.ListCollections());
  for (const Collection& collection : collections) {
    KVASIR_RETURN_IF_ERROR(retriever->OpenShelf(collection));
  }
  return retriever;
}

// Only vectors of chunks that a document lists are taken: what a corrupt document leaves behind
// stays out.
Status Retriever::FillShelf(const Collection& collection, Shelf* shelf) {
  int64_t corrupt = 0;
  KVASIR_RETURN_IF_ERROR(store_.ForEachDocument(
      collection.name,
      [&](const Document& document) {
        shelf->Insert(document);
        return true;
      },
      &corrupt));
  std::vector<ChunkId> ids;
  std::vector<float> vectors;
  Status status;
  const auto flush = [&] {
    status = shelf->index->Add(ids, vectors);
    ids.clear();
    vectors.clear();
    return status.ok();
  };
  const auto dimension = static_cast<size_t>(collection.dimension);
  KVASIR_RETURN_IF_ERROR(store_.ForEachVector(
      collection.name,
      [&](ChunkId id, std::span<const float> vector) {
        if (vector.size() != dimension || !shelf->owner.contains(id)) return true;
        ids.push_back(id);
        vectors.insert(vectors.end(), vector.begin(), vector.end());
        return ids.size() < kFillRows || flush();
      },
      &corrupt));
  corrupt_records_ += corrupt;
  if (status.ok()) flush();
  return status;
}

Status Retriever::OpenShelf(const Collection& collection) {
  if (collection.embedder != embedder_.identity()) {
    std::unique_lock lock(mutex_);
    closed_[collection.name] =
        "collection " + collection.name +
        " was made with another embedding model: configure that one, or delete the collection and "
        "ingest again";
    return Status::Ok();
  }
  VectorIndexOptions options = options_.index;
  options.dimension = collection.dimension;
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<VectorIndex> index, VectorIndex::Create(options));
  auto shelf = std::make_shared<Shelf>(std::move(index));
  KVASIR_RETURN_IF_ERROR(FillShelf(collection, shelf.get()));
  std::unique_lock lock(mutex_);
  shelves_[collection.name] = std::move(shelf);
  return Status::Ok();
}

Result<std::shared_ptr<Retriever::Shelf>> Retriever::Find(std::string_view collection) const {
  std::shared_lock lock(mutex_);
  if (const auto found = shelves_.find(collection); found != shelves_.end()) return found->second;
  if (const auto why = closed_.find(collection); why != closed_.end()) {
    return FailedPrecondition(why->second);
  }
  return NotFound("no collection " + std::string(collection));
}

// ---- changes ----------------------------------------------------------------------------------

Result<Collection> Retriever::EnsureCollection(Collection collection) {
  collection.embedder = embedder_.identity();
  collection.dimension = embedder_.dimension();
  std::lock_guard writer(writers_);
  KVASIR_ASSIGN_OR_RETURN(Collection stored, store_.EnsureCollection(collection));
  if (!Find(stored.name).ok()) KVASIR_RETURN_IF_ERROR(OpenShelf(stored));
  return stored;
}

Result<int64_t> Retriever::DeleteCollection(std::string_view name) {
  std::lock_guard writer(writers_);
  {
    std::unique_lock lock(mutex_);
    if (const auto found = shelves_.find(name); found != shelves_.end()) shelves_.erase(found);
  }
  Result<int64_t> deleted = store_.DeleteCollection(name);
  if (deleted.ok()) {
    std::unique_lock lock(mutex_);
    if (const auto why = closed_.find(name); why != closed_.end()) closed_.erase(why);
  } else if (Result<Collection> left = store_.GetCollection(name); left.ok()) {
    KVASIR_RETURN_IF_ERROR(OpenShelf(*left));  // what a failed write left can still be searched
  }
  return deleted;
}

Status Retriever::EmbedMissing(std::vector<NewChunk>* chunks) {
  std::vector<NewChunk*> missing;
  std::vector<std::string> texts;
  for (NewChunk& chunk : *chunks) {
    if (!chunk.vector.empty()) continue;
    missing.push_back(&chunk);
    texts.push_back(chunk.title.empty() ? chunk.text : chunk.title + "\n" + chunk.text);
  }
  if (missing.empty()) return Status::Ok();
  KVASIR_ASSIGN_OR_RETURN(const std::vector<float> vectors, embedder_.Embed(texts));
  const auto dimension = static_cast<ptrdiff_t>(embedder_.dimension());
  for (size_t i = 0; i < missing.size(); ++i) {
    const auto begin = vectors.begin() + static_cast<ptrdiff_t>(i) * dimension;
    missing[i]->vector.assign(begin, begin + dimension);
  }
  return Status::Ok();
}

Result<PutOutcome> Retriever::Put(NewDocument document) {
  KVASIR_RETURN_IF_ERROR(Find(document.collection).status());
  if (!document.id.empty()) {  // spare the embedding of what has not changed
    const Result<bool> same = store_.IsUnchanged(document.id, document.content_digest);
    if (!same.ok() || !*same) KVASIR_RETURN_IF_ERROR(EmbedMissing(&document.chunks));
  } else {
    KVASIR_RETURN_IF_ERROR(EmbedMissing(&document.chunks));
  }
  std::vector<float> vectors;
  for (const NewChunk& chunk : document.chunks) {
    vectors.insert(vectors.end(), chunk.vector.begin(), chunk.vector.end());
  }
  std::lock_guard writer(writers_);
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<Shelf> shelf, Find(document.collection));
  KVASIR_ASSIGN_OR_RETURN(PutOutcome outcome, store_.Put(std::move(document)));
  if (outcome.unchanged) return outcome;
  KVASIR_ASSIGN_OR_RETURN(const Document stored, store_.Get(outcome.id));
  // New vectors are searched, but not shown, until the document is switched.
  KVASIR_RETURN_IF_ERROR(shelf->index->Add(outcome.added, vectors));
  shelf->Forget(outcome.removed);
  shelf->Insert(stored);
  shelf->index->Remove(outcome.removed);
  return outcome;
}

Result<std::vector<ChunkId>> Retriever::Delete(std::string_view id) {
  std::lock_guard writer(writers_);
  KVASIR_ASSIGN_OR_RETURN(std::vector<ChunkId> removed, store_.Delete(id));
  std::shared_lock lock(mutex_);
  for (const auto& [name, shelf] : shelves_) {
    shelf->Erase(id);
    shelf->Forget(removed);
    shelf->index->Remove(removed);
  }
  return removed;
}

// ---- search -----------------------------------------------------------------------------------

Result<std::vector<SearchHit>> Retriever::Search(const SearchRequest& request) {
  KVASIR_RETURN_IF_ERROR(CheckSearch(request));
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<Shelf> shelf, Find(request.collection));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<float> query,
                          embedder_.Embed(std::span(&request.query, 1)));
  return Collect(request, *shelf, query);
}

// Looks at more and more candidates until top_k hits are left after duplicates, or none are left.
Result<std::vector<SearchHit>> Retriever::Collect(const SearchRequest& request, const Shelf& shelf,
                                                  const std::vector<float>& query) {
  VectorIndex::Filter filter;
  std::unordered_set<ChunkId> allowed;
  if (!request.filter.empty()) {
    allowed = shelf.Allowed(request.filter);
    filter = [&allowed](int64_t id) { return allowed.contains(id); };
  }
  NearDuplicates seen(options_.duplicate_overlap);
  std::unordered_set<ChunkId> looked_at;
  std::vector<SearchHit> hits;
  for (int32_t fetch = FirstFetch(request.top_k);; fetch *= 2) {
    KVASIR_ASSIGN_OR_RETURN(const std::vector<VectorHit> candidates,
                            shelf.index->Search(query, fetch, filter));
    for (const VectorHit& candidate : candidates) {
      if (hits.size() == static_cast<size_t>(request.top_k)) return hits;
      if (candidate.score < request.min_score) return hits;
      if (!looked_at.insert(candidate.id).second) continue;
      AppendHit(candidate, shelf, &seen, &hits);
    }
    const bool last = candidates.size() < static_cast<size_t>(fetch) || fetch >= kMostCandidates;
    if (last || hits.size() == static_cast<size_t>(request.top_k)) return hits;
  }
}

// A chunk that is gone, corrupt or a duplicate adds nothing.
void Retriever::AppendHit(const VectorHit& candidate, const Shelf& shelf, NearDuplicates* seen,
                          std::vector<SearchHit>* hits) {
  SearchHit hit;
  hit.score = candidate.score;
  if (!shelf.Describe(candidate.id, &hit)) return;
  Result<Chunk> chunk = store_.GetChunk(candidate.id);
  if (!chunk.ok()) {
    if (chunk.status().code() != StatusCode::kNotFound) ++corrupt_records_;
    return;
  }
  if (seen->SeenOrAdd(chunk->text)) return;
  hit.chunk = std::move(chunk).value();
  hits->push_back(std::move(hit));
}

// Looks further only past copies of the text and past what was deleted meanwhile.
Result<ChunkId> Retriever::Neighbour(std::string_view collection, ChunkId chunk) const {
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<Shelf> shelf, Find(collection));
  KVASIR_ASSIGN_OR_RETURN(const Chunk own, store_.GetChunk(chunk));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<float> vector, store_.GetVector(collection, chunk));
  size_t looked_at = 0;
  for (int32_t fetch = 4; looked_at < static_cast<size_t>(kMostCandidates); fetch *= 4) {
    KVASIR_ASSIGN_OR_RETURN(const std::vector<VectorHit> hits, shelf->index->Search(vector, fetch));
    for (; looked_at < hits.size(); ++looked_at) {
      const ChunkId id = hits[looked_at].id;
      SearchHit described;
      if (id == chunk || !shelf->Describe(id, &described)) continue;
      const Result<Chunk> other = store_.GetChunk(id);
      if (other.ok() && other->text != own.text) return id;
    }
    if (hits.size() < static_cast<size_t>(fetch)) break;
  }
  return ChunkId{0};
}

Retriever::Stats Retriever::stats() const {
  std::shared_lock lock(mutex_);
  Stats stats;
  stats.collections = static_cast<int64_t>(shelves_.size());
  stats.corrupt_records = corrupt_records_;
  for (const auto& [name, shelf] : shelves_) {
    std::shared_lock shelf_lock(shelf->mutex);
    stats.documents += static_cast<int64_t>(shelf->documents.size());
    stats.chunks += static_cast<int64_t>(shelf->owner.size());
    stats.index_bytes += shelf->index->bytes();
  }
  return stats;
}

}  // namespace kvasir
