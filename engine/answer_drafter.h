// AnswerDrafter: drafts what followed the answer's last tokens in past answers.
//
// It asks for the index at every guess, so that it sees what was added meanwhile; the source is
// called on the engine's thread and must not block. Whose answers these are is its owner's affair.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "engine/suffix_index.h"

namespace kvasir {

class AnswerDrafter final : public Drafter {
 public:
  using Source = std::function<std::shared_ptr<const SuffixIndex>()>;

  explicit AnswerDrafter(Source source) : source_(std::move(source)) {}
  void Append(int32_t token) override {
    if (tail_.size() == static_cast<size_t>(SuffixIndex::kLongestMatch)) tail_.erase(tail_.begin());
    tail_.push_back(token);
  }
  Guess Draft(int32_t most) override {
    const std::shared_ptr<const SuffixIndex> index = source_();
    return index == nullptr ? Guess() : index->Draft(tail_, most);
  }

 private:
  Source source_;
  std::vector<int32_t> tail_{SuffixIndex::kAnswerBegin};
};

}  // namespace kvasir
