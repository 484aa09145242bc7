// KvUpkeep: keeps stored chunk KV in step with documents that change or go, and chooses the chunks
// that stand before others (service/encoding.h: neighbour).
//
// Order of a change, so that neither a crash nor a request beside it leaves KV that saw text which
// is gone where it could be used:
//   Begin    KV of other documents' chunks behind text that goes is removed, durably, and so are
//   the
//            collection's past answers (service/answer_store.h), which may quote it
//   (the caller changes the document in the store)
//   End      KV of the document's own chunks that went is removed; chunks that lost their primer
//            get another one and are encoded again
// KV of a text is removed under every context, so that of requests with another system text goes,
// too; other documents with the very same chunk compute theirs again. Not that of a cache_salt.
// Keys name the primer's token ids, so KV behind another text is never found, whatever fails. A
// chunk whose primer is gone counts as one behind the fixed primer; Heal gives it another.
// Thread-safe; calls block on disk and engine.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "service/chunk_prefill.h"
#include "service/runtime.h"

namespace kvasir {

class KvUpkeep {
 public:
  explicit KvUpkeep(Runtime& runtime) : runtime_(runtime), prefill_(runtime) {}

  // What a change takes away.
  struct Parting {
    std::vector<Chunk> before;             // of the document; empty: it is new
    std::vector<Chunk> behind;             // of other documents, their primer in `before`
    std::vector<ChunkToMake> behind_made;  // how their KV was made
    std::string answers_of;                // collection whose past answers may quote it; "" = none
  };

  // `staying`: the token ids of the new version's chunks; none if the document goes. An error means
  // that KV could not be removed: the document must stay.
  Result<Parting> Begin(const CollectionContext& collection, const std::string& document,
                        const std::set<std::vector<int32_t>>& staying);
  // Never fails: what cannot be removed is unreachable, what cannot be encoded is computed by the
  // request that needs it.
  void End(const CollectionContext& collection, const Parting& parting,
           const std::string& document);

  // Puts chunks of a document that have no neighbour behind the nearest one, if there is one.
  Status ChooseNeighbours(const CollectionContext& collection, const std::string& document);
  // Gives new neighbours to chunks whose own went without an End: after a crash.
  void Heal(const CollectionContext& collection);

 private:
  // Removes a text's KV, whatever it was encoded behind (another system text, too), but for `keep`.
  Status RemoveKv(const CollectionContext& collection, const std::vector<int32_t>& token_ids,
                  const std::set<std::string>& keep);
  Status EraseAnswers(const std::string& collection);
  std::string KeyBytes(const CollectionContext& collection, const ChunkToMake& made) const {
    return prefill_.KeyOf(collection, made).Bytes();
  }
  std::vector<Chunk> CarryPrimers(const Parting& parting, const std::string& document);
  void Reattach(const CollectionContext& collection, const std::vector<Chunk>& chunks,
                const std::vector<ChunkToMake>& made, const std::vector<PrimerChoice>& choices);
  ChunkId NearestTo(const CollectionContext& collection, const Chunk& chunk);

  Runtime& runtime_;
  ChunkPrefill prefill_;
};

}  // namespace kvasir
