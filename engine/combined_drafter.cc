#include "engine/combined_drafter.h"

#include <algorithm>
#include <utility>

namespace kvasir {

void CombinedDrafter::Add(std::unique_ptr<Drafter> drafter) {
  if (drafter != nullptr) drafters_.push_back(std::move(drafter));
}

template <typename Call>
void CombinedDrafter::ForEach(const Call& call) {
  for (size_t i = 0; i < drafters_.size();) {
    try {
      call(*drafters_[i]);
      ++i;
    } catch (...) {  // what it says changes no answer, so neither does its silence
      drafters_.erase(drafters_.begin() + static_cast<std::ptrdiff_t>(i));
      ++dropped_;
    }
  }
}

void CombinedDrafter::Append(int32_t token) {
  ForEach([token](Drafter& drafter) { drafter.Append(token); });
}

Guess CombinedDrafter::Draft(int32_t most) {
  Guess best;
  ForEach([&](Drafter& drafter) {
    const int32_t mine = std::min(most, drafter.Most());
    Guess guess = drafter.Draft(mine);
    if (guess.tokens.empty()) return;
    if (guess.tokens.size() > size_t(mine)) guess.tokens.resize(size_t(mine));
    if (best.tokens.empty() || guess.expected > best.expected) best = std::move(guess);
  });
  return best;
}

int32_t CombinedDrafter::Most() const {
  int32_t most = 0;
  for (const auto& drafter : drafters_) most = std::max(most, drafter->Most());
  return most;
}

}  // namespace kvasir
