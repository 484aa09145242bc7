#include "service/kv_upkeep.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

namespace kvasir {
namespace {

using Ids = std::vector<int32_t>;

bool Holds(const std::vector<Chunk>& chunks, ChunkId id) {
  return std::any_of(chunks.begin(), chunks.end(), [&](const Chunk& c) { return c.id == id; });
}

// From chunks of the version before to those of the new one with the same text.
std::map<ChunkId, ChunkId> SameTexts(const std::vector<Chunk>& before,
                                     const std::vector<Chunk>& now) {
  std::map<Ids, ChunkId> by_text;
  for (const Chunk& chunk : now) by_text.emplace(chunk.token_ids, chunk.id);
  std::map<ChunkId, ChunkId> same;
  for (const Chunk& chunk : before) {
    if (const auto at = by_text.find(chunk.token_ids); at != by_text.end()) {
      same[chunk.id] = at->second;
    }
  }
  return same;
}

}  // namespace

Status KvUpkeep::RemoveKv(const CollectionContext& collection, const Ids& token_ids,
                          const std::set<std::string>& keep) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<ChunkKey> gone,
                          runtime_.cache().RemoveText(
                              collection.name, DigestTokens(token_ids),
                              [&keep](const ChunkKey& key) { return keep.contains(key.Bytes()); }));
  for (const ChunkKey& key : gone) runtime_.statistics().Forget(key);
  return Status::Ok();
}

Status KvUpkeep::EraseAnswers(const std::string& collection) {
  if (runtime_.answers() == nullptr || collection.empty()) return Status::Ok();
  return runtime_.answers()->Erase(collection);
}

Result<KvUpkeep::Parting> KvUpkeep::Begin(const CollectionContext& collection,
                                          const std::string& document,
                                          const std::set<Ids>& staying) {
  const DocumentStore& documents = runtime_.documents();
  Parting parting;
  const Result<Document> stored = documents.Get(document);
  const bool is_new = !stored.ok() && stored.status().code() == StatusCode::kNotFound;
  if (!is_new) parting.answers_of = stored.ok() ? stored->collection : collection.name;
  KVASIR_RETURN_IF_ERROR(EraseAnswers(parting.answers_of));
  if (!stored.ok() || stored->collection != collection.name) return parting;
  const Result<std::vector<Chunk>> before = documents.GetChunks(document);
  if (!before.ok()) return parting;  // a damaged record: the store deletes or replaces it
  parting.before = *before;
  for (const Chunk& chunk : parting.before) {
    KVASIR_ASSIGN_OR_RETURN(const std::vector<Chunk> behind, documents.ChunksBehind(chunk.id));
    for (const Chunk& other : behind) {
      if (other.document_id == document) continue;
      parting.behind.push_back(other);
      parting.behind_made.push_back(StoredChunk(documents, collection, other));
      if (staying.contains(chunk.token_ids)) continue;
      KVASIR_RETURN_IF_ERROR(RemoveKv(collection, other.token_ids, {}));
    }
  }
  return parting;
}

// Chunks whose text and whose primer's text are the same in the new version stay behind it, so that
// their KV is still theirs. Returns the new version's chunks.
std::vector<Chunk> KvUpkeep::CarryPrimers(const Parting& parting, const std::string& document) {
  const Result<std::vector<Chunk>> now = runtime_.documents().GetChunks(document);
  if (!now.ok()) return {};
  const std::map<ChunkId, ChunkId> same = SameTexts(parting.before, *now);
  std::vector<PrimerChoice> choices;
  for (const Chunk& old : parting.before) {
    const auto successor = same.find(old.id);
    if (old.primer == 0 || successor == same.end()) continue;
    const auto moved = same.find(old.primer);
    if (moved != same.end()) {
      choices.push_back({successor->second, moved->second});
    } else if (!Holds(parting.before, old.primer)) {
      choices.push_back({successor->second, old.primer});
    }
  }
  if (choices.empty() || !runtime_.documents().SetPrimers(choices).ok()) return *now;
  Result<std::vector<Chunk>> carried = runtime_.documents().GetChunks(document);
  return carried.ok() ? *std::move(carried) : *now;
}

void KvUpkeep::End(const CollectionContext& collection, const Parting& parting,
                   const std::string& document) {
  // Once more, for answers of requests that came meanwhile.
  [[maybe_unused]] const Status erased = EraseAnswers(parting.answers_of);
  const bool neighbours = collection.encoding.condition == IngestionCondition::kPrimerNeighbour;
  std::vector<Chunk> now;
  if (neighbours) {
    now = CarryPrimers(parting, document);
  } else if (auto chunks = runtime_.documents().GetChunks(document); chunks.ok()) {
    now = *std::move(chunks);
  }
  std::set<std::string> live;
  for (const Chunk& chunk : now) {
    live.insert(KeyBytes(collection, StoredChunk(runtime_.documents(), collection, chunk)));
  }
  for (const Chunk& chunk : parting.before) {
    // A failed removal leaves unreachable bytes, never a wrong answer: keys name the text itself.
    [[maybe_unused]] const Status removed = RemoveKv(collection, chunk.token_ids, live);
  }
  const std::map<ChunkId, ChunkId> same = SameTexts(parting.before, now);
  std::vector<PrimerChoice> choices;
  for (const Chunk& chunk : parting.behind) {
    const auto moved = same.find(chunk.primer);
    choices.push_back(
        {chunk.id, moved != same.end() ? moved->second : NearestTo(collection, chunk)});
  }
  Reattach(collection, parting.behind, parting.behind_made, choices);
}

// Puts chunks behind other primers; removes the KV that is not theirs any more, of which a request
// beside may have made some again, and makes the new one.
void KvUpkeep::Reattach(const CollectionContext& collection, const std::vector<Chunk>& chunks,
                        const std::vector<ChunkToMake>& made,
                        const std::vector<PrimerChoice>& choices) {
  if (chunks.empty() || !runtime_.documents().SetPrimers(choices).ok()) return;
  std::vector<Chunk> now;
  for (size_t i = 0; i < chunks.size(); ++i) {
    Result<Chunk> chunk = runtime_.documents().GetChunk(chunks[i].id);
    if (!chunk.ok()) continue;
    const ChunkToMake wanted = StoredChunk(runtime_.documents(), collection, *chunk);
    now.push_back(*std::move(chunk));
    if (wanted.context == made[i].context) continue;
    [[maybe_unused]] const Status removed =
        RemoveKv(collection, wanted.token_ids, {KeyBytes(collection, wanted)});
  }
  [[maybe_unused]] const Status encoded =
      prefill_.MakeStored(collection, now, /*require_disk=*/false, nullptr);
}

ChunkId KvUpkeep::NearestTo(const CollectionContext& collection, const Chunk& chunk) {
  const Result<Retriever*> retriever = runtime_.retrieval();
  if (!retriever.ok()) return 0;
  const Result<ChunkId> nearest = (*retriever)->Neighbour(collection.name, chunk.id);
  return nearest.ok() ? *nearest : 0;
}

Status KvUpkeep::ChooseNeighbours(const CollectionContext& collection,
                                  const std::string& document) {
  if (collection.encoding.condition != IngestionCondition::kPrimerNeighbour) return Status::Ok();
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Chunk> chunks,
                          runtime_.documents().GetChunks(document));
  std::vector<PrimerChoice> choices;
  std::vector<ChunkToMake> made;
  for (const Chunk& chunk : chunks) {
    ChunkToMake found = StoredChunk(runtime_.documents(), collection, chunk);
    if (!found.keep_primer) continue;
    const ChunkId nearest = NearestTo(collection, chunk);
    if (nearest == 0) continue;
    choices.push_back({chunk.id, nearest});
    made.push_back(std::move(found));
  }
  KVASIR_RETURN_IF_ERROR(runtime_.documents().SetPrimers(choices));
  // KV behind the fixed primer, of a time when there was no neighbour: unreachable from now on.
  for (const ChunkToMake& old : made) {
    const ChunkKey key = prefill_.KeyOf(collection, old);
    if (const auto removed = runtime_.cache().Remove(key); removed.ok() && *removed) {
      runtime_.statistics().Forget(key);
    }
  }
  return Status::Ok();
}

void KvUpkeep::Heal(const CollectionContext& collection) {
  if (collection.encoding.condition != IngestionCondition::kPrimerNeighbour) return;
  const Result<std::vector<Chunk>> lost = runtime_.documents().ChunksBehindNothing();
  if (!lost.ok()) return;
  std::vector<Chunk> chunks;
  std::vector<ChunkToMake> made;
  std::vector<PrimerChoice> choices;
  for (const Chunk& chunk : *lost) {
    const Result<Document> document = runtime_.documents().Get(chunk.document_id);
    if (!document.ok() || document->collection != collection.name) continue;
    chunks.push_back(chunk);
    made.push_back(StoredChunk(runtime_.documents(), collection, chunk));
    choices.push_back({chunk.id, NearestTo(collection, chunk)});
  }
  Reattach(collection, chunks, made, choices);
}

}  // namespace kvasir
