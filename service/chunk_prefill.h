// ChunkPrefill: the one code path by which chunk KV comes into being. Ingestion and a cache miss
// both call it: a prefill-only request behind the anchor, its KV captured, encoded and inserted.
//
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
};

struct AnchorKv {
  std::vector<int32_t> ids;
  std::shared_ptr<const KvBlocks> blocks;  // null: the pool has no room; prompts compute it
};

class ChunkPrefill {
 public:
  explicit ChunkPrefill(Runtime& runtime) : runtime_(runtime) {}

  // The anchor's own KV, computed and stored at its first use. `made` says whether it was.
  Result<AnchorKv> Anchor(const std::string& name_space, const std::vector<int32_t>& ids,
                          bool persist, bool* made = nullptr);

  // Computes and inserts chunks, a few at a time in the engine; `done` is called after each with
  // its index and status. Returns the first error of the engine; a failed insert on disk falls
  // back to the memory tier if !require_disk.
  Status Make(const std::string& name_space, const AnchorKv& anchor,
              const std::vector<ChunkToMake>& chunks, bool persist, bool require_disk,
              const std::function<void(size_t index, const Status&)>& done);

 private:
  struct Job;
  std::shared_ptr<Job> Start(const AnchorKv& anchor, const std::vector<int32_t>& token_ids);
  Status Finish(Job& job, const std::string& name_space, const std::vector<int32_t>& anchor,
                const std::vector<int32_t>& token_ids, bool persist, bool require_disk);

  Runtime& runtime_;
};

}  // namespace kvasir
