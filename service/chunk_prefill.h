// ChunkPrefill: the one code path by which chunk KV comes into being. Ingestion and a cache miss
// both call it: a prefill-only request behind the chunk's context (service/encoding.h), its KV
// captured, encoded and inserted.
//
//   anchor | primer | chunk     the anchor's KV is made once and comes as blocks, so is that of a
//                               primer that is kept; any other primer is computed on the way
// Thread-safe; calls block until the engine and the disk are done.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "service/runtime.h"

namespace kvasir {

struct ChunkToMake {
  std::vector<int32_t> token_ids;
  // Its anchor must be that of the call, or empty (bare).
  ChunkContext context;
  // The primer stands before many chunks: its own KV is made once, behind the anchor, and stored.
  bool keep_primer = false;
};

// How the KV of a stored chunk is made.
ChunkToMake StoredChunk(const DocumentStore& documents, const CollectionContext& collection,
                        const Chunk& chunk);

// A run of tokens that stands in front of chunks.
struct FrontKv {
  std::vector<int32_t> ids;
  std::shared_ptr<const KvBlocks> blocks;  // null: the pool has no room; prompts compute it
};

class ChunkPrefill {
 public:
  explicit ChunkPrefill(Runtime& runtime) : runtime_(runtime) {}

  // The anchor's own KV, computed and stored at its first use. `made` says whether it was.
  Result<FrontKv> Anchor(const std::string& name_space, const std::vector<int32_t>& ids,
                         bool persist, bool* made = nullptr);

  // Computes and inserts chunks, a few at a time in the engine; `done` is called after each with
  // its index and status. Returns the first error of the engine; a failed insert on disk falls
  // back to the memory tier if !require_disk.
  Status Make(const std::string& name_space, const FrontKv& anchor,
              const std::vector<ChunkToMake>& chunks, bool persist, bool require_disk,
              const std::function<void(size_t index, const Status&)>& done);

  // Computes and stores those of a collection's chunks whose KV is not stored; `done` is called
  // with each that was. KV behind a primer that was replaced meanwhile is removed again.
  Status MakeStored(const CollectionContext& collection, const std::vector<Chunk>& chunks,
                    bool require_disk, const std::function<void(const ChunkToMake&)>& done);

  // Removes KV just made if its chunk is gone or stands behind another primer by now.
  void RemoveIfOutdated(const ChunkKey& key, ChunkId id, const ChunkToMake& made);

  ChunkKey KeyOf(const CollectionContext& collection, const ChunkToMake& chunk) const {
    return runtime_.KeyOf(collection.name, chunk.context, chunk.token_ids);
  }
  bool IsStored(const CollectionContext& collection, const ChunkToMake& chunk) const {
    return runtime_.cache().Contains(KeyOf(collection, chunk), chunk.token_ids) != std::nullopt;
  }

 private:
  struct Job;
  struct Target;  // what becomes of a job's KV
  class Primers;  // those that are kept, of one call of Make

  std::shared_ptr<Job> Start(std::vector<SegmentPlan> front, const std::vector<int32_t>& token_ids);
  Status Finish(Job& job, const Target& target);
  // The KV of a run behind `front`, looked up or made now.
  Result<FrontKv> Front(std::vector<SegmentPlan> front, Target target, bool* made);
  std::shared_ptr<Job> StartChunk(const FrontKv& anchor, const ChunkToMake& chunk,
                                  const FrontKv& primer);

  Runtime& runtime_;
};

}  // namespace kvasir
