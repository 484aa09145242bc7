#include "engine/write_check.h"

#include <algorithm>
#include <string>

namespace kvasir {
namespace {

std::string N(int64_t value) { return std::to_string(value); }

Status CheckSlot(int32_t slot, const Sequence& sequence, const BlockPool& pool) {
  const int32_t block = slot / kBlockTokens;
  if (slot < 0 || block >= pool.total()) {
    return Internal("slot " + N(slot) + ", the pool has blocks 0 to " + N(pool.total() - 1));
  }
  const std::vector<int32_t>& own = sequence.own_blocks();
  if (std::find(own.begin(), own.end(), block) == own.end()) {
    return Internal("slot " + N(slot) + " of block " + N(block) + ", which is not its own");
  }
  const int32_t owners = pool.RefCount(block);
  if (owners == 1) return Status::Ok();
  return Internal("slot " + N(slot) + " of block " + N(block) + ", which has " + N(owners) +
                  " owners");
}

}  // namespace

Status CheckWrites(const StepBatch& batch, std::span<const Sequence* const> sequences,
                   const BlockPool& pool) {
  KVASIR_CHECK(batch.sequences.size() == sequences.size());
  for (size_t i = 0; i < sequences.size(); ++i) {
    const SequenceSpan& span = batch.sequences[i];
    for (int32_t row = span.row_begin; row < span.row_end; ++row) {
      const Status status = CheckSlot(batch.slots[static_cast<size_t>(row)], *sequences[i], pool);
      if (status.ok()) continue;
      return Internal("request " + N(static_cast<int64_t>(sequences[i]->id())) + " writes row " +
                      N(row) + " to " + status.message());
    }
  }
  return Status::Ok();
}

}  // namespace kvasir
