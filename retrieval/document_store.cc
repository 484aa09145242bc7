#include "retrieval/document_store.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <utility>

#include "retrieval/document_checks.h"
#include "retrieval/document_records.h"

namespace kvasir {
namespace {

int64_t NowMs() {
  using std::chrono::duration_cast, std::chrono::milliseconds, std::chrono::system_clock;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

std::string RandomId() {
  std::random_device random;
  char text[37];
  std::snprintf(text, sizeof text, "doc-%08x%08x%08x%08x", random(), random(), random(), random());
  return text;
}

Status NoSuchDocument(std::string_view id) { return NotFound("no document " + std::string(id)); }

Result<ChunkId> HighestChunk(const OrderedStore& store) {
  ChunkId highest = 0;
  KVASIR_RETURN_IF_ERROR(store.Scan(kChunkPrefix, [&](std::string_view key, std::string_view) {
    highest = std::max(highest, ChunkIdOf(key));
    return true;
  }));
  return highest;
}

}  // namespace

// A counter that is missing or corrupt is worked out again from the chunks.
Result<std::unique_ptr<DocumentStore>> DocumentStore::Open(OrderedStore& store) {
  KVASIR_ASSIGN_OR_RETURN(const std::optional<std::string> bytes, store.Get(kCounterKey));
  ChunkId next = 0;
  if (bytes) {
    const Result<ChunkId> stored = DecodeCounter(*bytes);
    if (stored.ok()) next = *stored;
    if (stored.status().code() == StatusCode::kFailedPrecondition) return stored.status();
  }
  if (next == 0) {
    KVASIR_ASSIGN_OR_RETURN(const ChunkId highest, HighestChunk(store));
    next = highest + 1;
  }
  return std::unique_ptr<DocumentStore>(new DocumentStore(store, next));
}

// ---- collections ------------------------------------------------------------------------------

Result<Collection> DocumentStore::EnsureCollection(const Collection& collection) {
  KVASIR_RETURN_IF_ERROR(CheckCollectionName(collection.name));
  if (collection.dimension < 1) {
    return InvalidArgument("collection " + collection.name + ": dimension must be at least 1");
  }
  std::lock_guard lock(mutex_);
  Result<Collection> stored = GetCollection(collection.name);
  if (stored.ok()) {
    KVASIR_RETURN_IF_ERROR(CheckSameCollection(*stored, collection));
    return stored;
  }
  if (stored.status().code() != StatusCode::kNotFound) return stored.status();
  Collection created = collection;
  created.created_ms = NowMs();
  WriteOperations write;
  write.puts.emplace_back(CollectionKey(created.name), EncodeCollection(created));
  KVASIR_RETURN_IF_ERROR(store_.Write(write));
  return created;
}

Result<Collection> DocumentStore::GetCollection(std::string_view name) const {
  KVASIR_ASSIGN_OR_RETURN(const std::optional<std::string> bytes, store_.Get(CollectionKey(name)));
  if (!bytes) return NotFound("no collection " + std::string(name));
  return DecodeCollection(*bytes, name);
}

Result<std::vector<Collection>> DocumentStore::ListCollections() const {
  std::vector<Collection> collections;
  Status status;
  const auto visit = [&](std::string_view key, std::string_view value) {
    Result<Collection> one = DecodeCollection(value, key.substr(kCollectionPrefix.size()));
    if (one.ok()) collections.push_back(std::move(one).value());
    status = one.status();
    return status.ok();
  };
  KVASIR_RETURN_IF_ERROR(store_.Scan(kCollectionPrefix, visit));
  if (!status.ok()) return status;
  return collections;
}

Result<int64_t> DocumentStore::DeleteCollection(std::string_view name) {
  std::lock_guard lock(mutex_);
  KVASIR_ASSIGN_OR_RETURN(const std::optional<std::string> bytes, store_.Get(CollectionKey(name)));
  if (!bytes) return NotFound("no collection " + std::string(name));
  const std::string list = ListPrefix(name), vectors = VectorPrefix(name);
  std::vector<std::string> ids, left_over;
  KVASIR_RETURN_IF_ERROR(store_.Scan(list, [&](std::string_view key, std::string_view) {
    ids.emplace_back(key.substr(list.size()));
    return true;
  }));
  for (const std::string& id : ids) {
    KVASIR_ASSIGN_OR_RETURN(const std::optional<Document> document, FindOrSalvage(id));
    if (document) KVASIR_RETURN_IF_ERROR(Erase(*document));
  }
  // Vectors whose chunk was corrupt, entries of the list without a document.
  KVASIR_RETURN_IF_ERROR(store_.Scan(vectors, [&](std::string_view key, std::string_view) {
    left_over.push_back(ChunkKeyOf(ChunkIdOf(key)));
    left_over.emplace_back(key);
    return true;
  }));
  WriteOperations write;
  for (const std::string& id : ids) write.deletes.push_back(list + id);
  write.deletes.insert(write.deletes.end(), left_over.begin(), left_over.end());
  write.deletes.push_back(CollectionKey(name));
  KVASIR_RETURN_IF_ERROR(store_.Write(write));
  return static_cast<int64_t>(ids.size());
}

// ---- documents --------------------------------------------------------------------------------

Result<std::optional<Document>> DocumentStore::Find(std::string_view id) const {
  KVASIR_ASSIGN_OR_RETURN(const std::optional<std::string> bytes, store_.Get(DocumentKey(id)));
  if (!bytes) return std::optional<Document>();
  KVASIR_ASSIGN_OR_RETURN(Document document, DecodeDocument(*bytes, id));
  return std::optional<Document>(std::move(document));
}

// Every chunk has a vector, and every document stands in its collection's list.
Result<std::optional<Document>> DocumentStore::Salvage(std::string_view id) const {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Collection> collections, ListCollections());
  for (const Collection& collection : collections) {
    const std::string entry = ListPrefix(collection.name).append(id);
    KVASIR_ASSIGN_OR_RETURN(const std::optional<std::string> listed, store_.Get(entry));
    if (!listed) continue;
    Document document;
    document.id = id;
    document.collection = collection.name;
    std::vector<ChunkId> candidates;
    const auto note = [&](std::string_view key, std::string_view) {
      candidates.push_back(ChunkIdOf(key));
      return true;
    };
    KVASIR_RETURN_IF_ERROR(store_.Scan(VectorPrefix(collection.name), note));
    for (const ChunkId chunk : candidates) {
      const Result<Chunk> found = GetChunk(chunk);
      if (found.ok() && found->document_id == id) document.chunks.push_back(chunk);
    }
    return std::optional<Document>(std::move(document));
  }
  return std::optional<Document>();
}

Result<std::optional<Document>> DocumentStore::FindOrSalvage(std::string_view id) const {
  Result<std::optional<Document>> found = Find(id);
  return found.status().code() == StatusCode::kDataLoss ? Salvage(id) : std::move(found);
}

Result<Document> DocumentStore::Get(std::string_view id) const {
  KVASIR_ASSIGN_OR_RETURN(std::optional<Document> document, Find(id));
  if (!document) return NoSuchDocument(id);
  return *std::move(document);
}

Result<bool> DocumentStore::IsUnchanged(std::string_view id,
                                        std::string_view content_digest) const {
  KVASIR_ASSIGN_OR_RETURN(const std::optional<Document> document, Find(id));
  return document && !content_digest.empty() && document->content_digest == content_digest;
}

// A chunk's primer keeps its own list of what is behind it until those chunks have another one.
void DocumentStore::DeleteChunks(const Document& document, WriteOperations* out) const {
  for (const ChunkId id : document.chunks) {
    const Result<Chunk> chunk = GetChunk(id);
    if (chunk.ok() && chunk->primer != 0) out->deletes.push_back(BehindKey(chunk->primer, id));
    out->deletes.push_back(ChunkKeyOf(id));
    out->deletes.push_back(VectorKey(document.collection, id));
  }
}

// The new version's records and the end of the old one's, as one write.
WriteOperations DocumentStore::Switch(const NewDocument& source, const Document* before,
                                      Document* document) {
  WriteOperations write;
  for (size_t i = 0; i < source.chunks.size(); ++i) {
    const NewChunk& from = source.chunks[i];
    const ChunkId primer = from.behind_previous && i > 0 ? next_chunk_ - 1 : 0;
    const Chunk chunk{next_chunk_++,  source.id, static_cast<int32_t>(i), from.title, from.text,
                      from.token_ids, primer};
    document->chunks.push_back(chunk.id);
    document->tokens += static_cast<int64_t>(chunk.token_ids.size());
    write.puts.emplace_back(ChunkKeyOf(chunk.id), EncodeChunk(chunk));
    write.puts.emplace_back(VectorKey(source.collection, chunk.id),
                            EncodeVector(chunk.id, from.vector));
  }
  write.puts.emplace_back(kCounterKey, EncodeCounter(next_chunk_));
  write.puts.emplace_back(DocumentKey(source.id), EncodeDocument(*document));
  write.puts.emplace_back(ListPrefix(source.collection) + source.id, "");
  if (before) DeleteChunks(*before, &write);
  return write;
}

Result<PutOutcome> DocumentStore::Put(NewDocument source) {
  if (source.id.empty()) source.id = RandomId();
  std::lock_guard lock(mutex_);
  KVASIR_ASSIGN_OR_RETURN(const Collection collection, GetCollection(source.collection));
  KVASIR_RETURN_IF_ERROR(CheckDocumentId(source.id));
  KVASIR_ASSIGN_OR_RETURN(const std::optional<Document> before, FindOrSalvage(source.id));
  if (before && before->collection != source.collection) {
    return Status(StatusCode::kAlreadyExists, "document " + source.id + " is in collection " +
                                                  before->collection +
                                                  ": use another id or delete it there");
  }
  if (before && !source.content_digest.empty() && before->content_digest == source.content_digest) {
    return PutOutcome{source.id, before->version, true, {}, {}};
  }
  KVASIR_RETURN_IF_ERROR(CheckNewDocument(source, collection));
  const int64_t now = NowMs();
  Document document{source.id,
                    source.collection,
                    source.title,
                    source.source,
                    source.content_digest,
                    before ? before->version + 1 : 1,
                    source.metadata,
                    before ? before->created_ms : now,
                    now,
                    0,
                    {}};
  const WriteOperations write = Switch(source, before ? &*before : nullptr, &document);
  KVASIR_RETURN_IF_ERROR(store_.Write(write));
  return PutOutcome{source.id, document.version, false, std::move(document.chunks),
                    before ? before->chunks : std::vector<ChunkId>()};
}

Status DocumentStore::Erase(const Document& document) {
  WriteOperations write;
  DeleteChunks(document, &write);
  write.deletes.push_back(DocumentKey(document.id));
  write.deletes.push_back(ListPrefix(document.collection).append(document.id));
  return store_.Write(write);
}

Result<std::vector<ChunkId>> DocumentStore::Delete(std::string_view id) {
  std::lock_guard lock(mutex_);
  KVASIR_ASSIGN_OR_RETURN(const std::optional<Document> document, FindOrSalvage(id));
  if (!document) return NoSuchDocument(id);
  KVASIR_RETURN_IF_ERROR(Erase(*document));
  return document->chunks;
}

Result<DocumentPage> DocumentStore::List(std::string_view collection, std::string_view after,
                                         int32_t limit) const {
  if (limit < 1 || limit > 1000) return InvalidArgument("limit must be 1 to 1000");
  KVASIR_RETURN_IF_ERROR(GetCollection(collection).status());
  const std::string prefix = ListPrefix(collection);
  std::vector<std::string> ids;
  KVASIR_RETURN_IF_ERROR(store_.Scan(prefix, [&](std::string_view key, std::string_view) {
    const std::string_view id = key.substr(prefix.size());
    if (id > after) ids.emplace_back(id);
    return ids.size() <= static_cast<size_t>(limit);
  }));
  DocumentPage page;
  if (ids.size() > static_cast<size_t>(limit)) {
    ids.pop_back();
    page.next_after = ids.back();
  }
  for (const std::string& id : ids) {
    Result<std::optional<Document>> found = Find(id);
    if (found.status().code() == StatusCode::kDataLoss) {
      page.corrupt.push_back(id);
    } else if (!found.ok()) {
      return found.status();
    } else if (*found) {  // else deleted meanwhile
      page.documents.push_back(**std::move(found));
    }
  }
  return page;
}

// ---- chunks -----------------------------------------------------------------------------------

Result<Chunk> DocumentStore::GetChunk(ChunkId id) const {
  KVASIR_ASSIGN_OR_RETURN(const std::optional<std::string> bytes, store_.Get(ChunkKeyOf(id)));
  if (!bytes) return NotFound("no chunk " + std::to_string(id));
  return DecodeChunk(*bytes, id);
}

Result<std::vector<Chunk>> DocumentStore::GetChunks(std::string_view document_id) const {
  KVASIR_ASSIGN_OR_RETURN(const Document document, Get(document_id));
  std::vector<Chunk> chunks;
  for (const ChunkId id : document.chunks) {
    KVASIR_ASSIGN_OR_RETURN(Chunk chunk, GetChunk(id));
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

Result<std::vector<float>> DocumentStore::GetVector(std::string_view collection, ChunkId id) const {
  KVASIR_ASSIGN_OR_RETURN(const std::optional<std::string> bytes,
                          store_.Get(VectorKey(collection, id)));
  if (!bytes) return NotFound("no vector of chunk " + std::to_string(id));
  return DecodeVector(*bytes, id);
}

Status DocumentStore::ForEachVector(
    std::string_view collection, const std::function<bool(ChunkId, std::span<const float>)>& visit,
    int64_t* corrupt) const {
  return store_.Scan(VectorPrefix(collection), [&](std::string_view key, std::string_view value) {
    const ChunkId id = ChunkIdOf(key);
    const Result<std::vector<float>> vector = DecodeVector(value, id);
    if (vector.ok()) return visit(id, *vector);
    if (corrupt) ++*corrupt;
    return true;
  });
}

// ---- primers ----------------------------------------------------------------------------------

Status DocumentStore::SetPrimers(std::span<const PrimerChoice> choices) {
  std::lock_guard lock(mutex_);
  WriteOperations write;
  for (const PrimerChoice& choice : choices) {
    Result<Chunk> chunk = GetChunk(choice.chunk);
    if (chunk.status().code() == StatusCode::kNotFound) continue;
    if (!chunk.ok()) return chunk.status();
    const bool there = choice.primer != 0 && GetChunk(choice.primer).ok();
    const ChunkId primer = there ? choice.primer : 0;
    if (chunk->primer == primer) continue;
    if (chunk->primer != 0) write.deletes.push_back(BehindKey(chunk->primer, chunk->id));
    if (primer != 0) write.puts.emplace_back(BehindKey(primer, chunk->id), "");
    chunk->primer = primer;
    write.puts.emplace_back(ChunkKeyOf(chunk->id), EncodeChunk(*chunk));
  }
  return write.puts.empty() ? Status::Ok() : store_.Write(write);
}

Result<std::vector<Chunk>> DocumentStore::ReadBehind(std::string_view prefix, bool gone) const {
  std::vector<std::pair<ChunkId, ChunkId>> links;  // primer, chunk
  KVASIR_RETURN_IF_ERROR(store_.Scan(prefix, [&](std::string_view key, std::string_view) {
    links.emplace_back(PrimerOf(key), ChunkIdOf(key));
    return true;
  }));
  std::vector<Chunk> chunks;
  for (const auto& [primer, id] : links) {
    if (gone && GetChunk(primer).status().code() != StatusCode::kNotFound) continue;
    Result<Chunk> chunk = GetChunk(id);
    if (chunk.ok() && chunk->primer == primer) chunks.push_back(std::move(chunk).value());
  }
  return chunks;
}

Result<std::vector<Chunk>> DocumentStore::ChunksBehind(ChunkId primer) const {
  return ReadBehind(BehindPrefixOf(primer), /*gone=*/false);
}

Result<std::vector<Chunk>> DocumentStore::ChunksBehindNothing() const {
  return ReadBehind(kBehindPrefix, /*gone=*/true);
}

Status DocumentStore::ForEachDocument(std::string_view collection,
                                      const std::function<bool(const Document&)>& visit,
                                      int64_t* corrupt) const {
  const std::string prefix = ListPrefix(collection);
  Status status;
  KVASIR_RETURN_IF_ERROR(store_.Scan(prefix, [&](std::string_view key, std::string_view) {
    const Result<std::optional<Document>> document = Find(key.substr(prefix.size()));
    if (document.ok()) return !*document || visit(**document);
    if (document.status().code() != StatusCode::kDataLoss) status = document.status();
    if (corrupt) ++*corrupt;
    return status.ok();
  }));
  return status;
}

}  // namespace kvasir
