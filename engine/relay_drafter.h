// RelayDrafter: guesses an answer from one that is written down already: all the rest of it for as
// long as the two agree, verified whole, because it is likelier right than guesses of others;
// behind the first difference what followed the answer's last tokens there, like a past answer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "engine/answer_drafter.h"

namespace kvasir {

class RelayDrafter final : public Drafter {
 public:
  // A step of so many rows costs a few times one of a single row.
  static constexpr int32_t kMost = 64;

  explicit RelayDrafter(std::vector<int32_t> answer) : answer_(std::move(answer)) {}
  RelayDrafter(const RelayDrafter&) = delete;
  RelayDrafter& operator=(const RelayDrafter&) = delete;

  void Append(int32_t token) override {
    agrees_ = agrees_ && next_ < answer_.size() && answer_[next_] == token;
    ++next_;
    behind_.Append(token);
  }
  Guess Draft(int32_t most) override { return agrees_ ? Rest(most) : Behind(most); }
  int32_t Most() const override { return kMost; }

 private:
  Guess Rest(int32_t most) const {
    const size_t count = std::min(answer_.size() - next_, static_cast<size_t>(most));
    const auto begin = answer_.begin() + static_cast<std::ptrdiff_t>(next_);
    return {{begin, begin + static_cast<std::ptrdiff_t>(count)},
            static_cast<double>(count),
            DraftSource::kDraftRun,
            /*whole=*/true};
  }
  Guess Behind(int32_t most) {
    if (index_ == nullptr) {
      index_ = std::make_shared<const SuffixIndex>(
          SuffixIndex::Answers{std::make_shared<const PastAnswer>(PastAnswer{answer_, 1})});
    }
    Guess guess = behind_.Draft(std::min(most, kMostDrafts));
    guess.source = DraftSource::kDraftRun;
    return guess;
  }

  std::vector<int32_t> answer_;
  size_t next_ = 0;  // token of it that comes next
  bool agrees_ = true;
  std::shared_ptr<const SuffixIndex> index_;  // of it, once they differ
  AnswerDrafter behind_{[this] { return index_; }};
};

}  // namespace kvasir
