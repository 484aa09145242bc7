// RelayDrafter: guesses an answer from one that is written down already, for as long as the two
// agree. Verified whole: right guesses are likelier than those of others, and it makes few.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/drafter.h"

namespace kvasir {

class RelayDrafter final : public Drafter {
 public:
  // A step of so many rows costs a few times one of a single row.
  static constexpr int32_t kMost = 64;

  explicit RelayDrafter(std::vector<int32_t> answer) : answer_(std::move(answer)) {}

  void Append(int32_t token) override {
    agrees_ = agrees_ && next_ < answer_.size() && answer_[next_] == token;
    ++next_;
  }
  Guess Draft(int32_t most) override {
    if (!agrees_) return {};
    const size_t count = std::min(answer_.size() - next_, static_cast<size_t>(most));
    const auto begin = answer_.begin() + static_cast<std::ptrdiff_t>(next_);
    return {{begin, begin + static_cast<std::ptrdiff_t>(count)},
            static_cast<double>(count),
            DraftSource::kDraftRun,
            /*whole=*/true};
  }
  int32_t Most() const override { return kMost; }

 private:
  std::vector<int32_t> answer_;
  size_t next_ = 0;  // token of it that comes next
  bool agrees_ = true;
};

}  // namespace kvasir
