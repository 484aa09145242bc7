// The order of a prompt's chunks under `prefix`: exact prefixes hit more often when the same chunks
// come in the same order. Pure but for look-ups; thread-safe.
//
//   as_given  the caller's
//   hash      by content: every permutation of a set of chunks is one prefix
//   tree      chunk by chunk whatever the index already holds behind those before it, then the rest
//             by content, the best (the caller's first) last, nearest to the question (CacheWeaver)
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "cache/fusion_policy.h"
#include "cache/prefix_index.h"

namespace kvasir {

// A permutation of the chunks' indices. `index` may be null (tree is hash then, the best last).
std::vector<size_t> OrderOf(ChunkOrder order, std::string_view name_space,
                            std::span<const int32_t> anchor_ids,
                            const std::vector<std::span<const int32_t>>& chunks,
                            const PrefixIndex* index);

}  // namespace kvasir
