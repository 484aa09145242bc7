#include "cache/chunk_order.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "cache/chunk_key.h"

namespace kvasir {
namespace {

using Chunks = std::vector<std::span<const int32_t>>;

std::vector<size_t> ByContent(const Chunks& chunks) {
  std::vector<Digest128> digests;
  for (const auto& chunk : chunks) digests.push_back(DigestTokens(chunk));
  std::vector<size_t> order(chunks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::tie(digests[a].high, digests[a].low) < std::tie(digests[b].high, digests[b].low);
  });
  return order;
}

// Moves chunks from `left` to `order` as long as the index knows one behind those before it.
void FollowTree(std::string_view name_space, std::span<const int32_t> anchor_ids,
                const Chunks& chunks, const PrefixIndex& index, std::vector<size_t>* left,
                std::vector<size_t>* order) {
  std::vector<int32_t> prefix(anchor_ids.begin(), anchor_ids.end());
  int32_t matched = index.MatchedTokens(name_space, prefix);
  while (!left->empty()) {
    auto best = left->end();
    for (auto at = left->begin(); at != left->end(); ++at) {
      const size_t size = prefix.size();
      prefix.insert(prefix.end(), chunks[*at].begin(), chunks[*at].end());
      const int32_t tokens = index.MatchedTokens(name_space, prefix);
      prefix.resize(size);
      if (tokens <= matched) continue;
      matched = tokens;
      best = at;
    }
    if (best == left->end()) return;
    prefix.insert(prefix.end(), chunks[*best].begin(), chunks[*best].end());
    order->push_back(*best);
    left->erase(best);
  }
}

}  // namespace

std::vector<size_t> OrderOf(ChunkOrder order, std::string_view name_space,
                            std::span<const int32_t> anchor_ids, const Chunks& chunks,
                            const PrefixIndex* index) {
  if (order == ChunkOrder::kHash) return ByContent(chunks);
  std::vector<size_t> chosen;
  if (order == ChunkOrder::kAsGiven) {
    chosen.resize(chunks.size());
    std::iota(chosen.begin(), chosen.end(), size_t{0});
    return chosen;
  }
  std::vector<size_t> left = ByContent(chunks);
  if (index != nullptr) FollowTree(name_space, anchor_ids, chunks, *index, &left, &chosen);
  const auto best = std::find(left.begin(), left.end(), size_t{0});
  if (best != left.end()) std::rotate(best, best + 1, left.end());
  chosen.insert(chosen.end(), left.begin(), left.end());
  return chosen;
}

}  // namespace kvasir
