// CheckWrites: the rule on which sharing KV rests: who writes a block owns it alone. A debug aid:
// StepRunner aborts on a violation in builds without NDEBUG; release builds do not look.
//
// Pure but for the pool's lock. It sees only blocks whose owners count in the pool, so a handle
// that is shared by pointers shows as one owner: hence the block must also be among the sequence's
// own ones (Sequence::own_blocks), which it never handed out as writable.
#pragma once

#include <span>

#include "engine/block_pool.h"
#include "engine/sequence.h"
#include "kernels/core/status.h"
#include "kernels/core/step_batch.h"

namespace kvasir {

// sequences[i] owns the batch's span i. kInternal names the first row, its slot and block and what
// is wrong with it.
Status CheckWrites(const StepBatch& batch, std::span<const Sequence* const> sequences,
                   const BlockPool& pool);

}  // namespace kvasir
