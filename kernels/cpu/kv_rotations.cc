#include "kernels/cpu/kv_rotations.h"

#include <algorithm>

#include "kernels/core/status.h"

namespace kvasir {
namespace {

bool SameTable(const RopeTable& a, const RopeTable& b) {
  return a.pairing == b.pairing && a.rotary_dims == b.rotary_dims && a.magnitude == b.magnitude &&
         a.inv_freq == b.inv_freq;
}

// Writes cos[dims] and sin[dims] as Rotation wants them.
void FillRow(const RopeTable& rope, int64_t position, float* cos, float* sin) {
  const auto half = static_cast<size_t>(rope.rotary_dims / 2);
  std::vector<float> c(half), s(half);
  rope.CosSin(position, c.data(), s.data());
  const bool interleaved = rope.pairing == RopePairing::kInterleaved;
  for (size_t j = 0; j < half; ++j) {
    const size_t first = interleaved ? 2 * j : j, second = interleaved ? 2 * j + 1 : j + half;
    cos[first] = cos[second] = c[j];
    sin[first] = -s[j];
    sin[second] = s[j];
  }
}

}  // namespace

Rotation Rotations::At(int64_t position) const {
  if (dims_ == 0) return {};
  KVASIR_CHECK(position >= 0 && position < positions());
  const Page& page = *pages_[static_cast<size_t>(position / kPagePositions)];
  const float* cos = page.data() + 2 * dims_ * (position % kPagePositions);
  return {interleaved_, dims_, cos, cos + dims_};
}

RotationCache::Entry& RotationCache::EntryOf(const RopeTable& rope) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return SameTable(entry.rope, rope); });
  if (found != entries_.end()) return *found;
  auto rotations = std::make_shared<Rotations>();
  rotations->interleaved_ = rope.pairing == RopePairing::kInterleaved;
  rotations->dims_ = rope.rotary_dims;
  entries_.push_back({rope, std::move(rotations)});
  return entries_.back();
}

std::shared_ptr<const Rotations> RotationCache::Get(const RopeTable* rope, int64_t positions) {
  static const auto kNone = std::make_shared<const Rotations>();
  if (rope == nullptr || rope->rotary_dims == 0) return kNone;
  KVASIR_CHECK(rope->inv_freq.size() == static_cast<size_t>(rope->rotary_dims / 2));
  const std::lock_guard lock(mutex_);
  Entry& entry = EntryOf(*rope);
  if (entry.rotations->positions() >= positions) return entry.rotations;
  auto grown = std::make_shared<Rotations>(*entry.rotations);  // pages are shared, not copied
  const auto dims = static_cast<size_t>(rope->rotary_dims);
  while (grown->positions() < positions) {
    auto page = std::make_shared<Rotations::Page>(2 * dims * Rotations::kPagePositions);
    for (int64_t p = 0; p < Rotations::kPagePositions; ++p) {
      float* cos = page->data() + 2 * dims * static_cast<size_t>(p);
      FillRow(*rope, grown->positions() + p, cos, cos + dims);
    }
    grown->pages_.push_back(std::move(page));
  }
  entry.rotations = std::move(grown);
  return entry.rotations;
}

}  // namespace kvasir
