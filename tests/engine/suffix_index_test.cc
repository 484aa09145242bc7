#include "engine/suffix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "engine/answer_drafter.h"

namespace kvasir {
namespace {

using Ids = std::vector<int32_t>;

std::shared_ptr<const PastAnswer> Past(Ids tokens, uint32_t times = 1) {
  return std::make_shared<const PastAnswer>(PastAnswer{std::move(tokens), times});
}

Ids Draft(const SuffixIndex& index, const Ids& tail, int32_t most = 8) {
  return index.Draft(tail, most).tokens;
}

TEST(SuffixIndex, DraftsWhatFollowed) {
  const SuffixIndex index({Past({1, 2, 3, 4, 5, 6, 7})});
  EXPECT_EQ(Draft(index, {1, 2, 3}, 2), (Ids{4, 5}));
  EXPECT_EQ(Draft(index, {9, 2, 3}), (Ids{4, 5, 6, 7}));
  EXPECT_TRUE(Draft(index, {3}).empty()) << "one token is no match";
  EXPECT_TRUE(Draft(index, {3, 2}).empty());
  EXPECT_TRUE(Draft(index, {6, 7}).empty()) << "nothing followed";
  EXPECT_TRUE(Draft(index, {1, 2, 3}, 0).empty());
  EXPECT_TRUE(Draft(SuffixIndex(), {1, 2, 3}).empty());
  EXPECT_EQ(index.Draft(Ids{1, 2, 3}, 8).source, DraftSource::kAnswers);
}

TEST(SuffixIndex, TheBeginOfAnAnswerIsAMatch) {
  const SuffixIndex index({Past({1, 2, 3}), Past({9, 1, 7, 7})});
  EXPECT_EQ(Draft(index, {SuffixIndex::kAnswerBegin, 1}), (Ids{2, 3}));
  AnswerDrafter drafter([&] { return std::make_shared<const SuffixIndex>(index); });
  drafter.Append(1);
  EXPECT_EQ(drafter.Draft(8).tokens, (Ids{2, 3}));
}

// Behind {1, 2}: 3 in three of four, then 4 in two of these three.
TEST(SuffixIndex, FollowsTheMostFrequentWhileItIsLikely) {
  const SuffixIndex index({Past({8, 1, 2, 3, 4}, 2), Past({9, 1, 2, 3, 5}), Past({7, 1, 2, 6, 6})});
  const Guess guess = index.Draft(Ids{0, 1, 2}, 8);
  const double first = 3.0 / 4 * ChanceBehind(2, 1), second = 2.0 / 4 * ChanceBehind(2, 2);
  EXPECT_DOUBLE_EQ(second, 0.25);
  EXPECT_EQ(guess.tokens, (Ids{3, 4}));
  EXPECT_DOUBLE_EQ(guess.expected, first + second);
  EXPECT_EQ(Draft(index, {9, 1, 2}), (Ids{3, 5})) << "a longer match says more";
}

TEST(SuffixIndex, EndsCountAsAWayToGoOn) {
  const SuffixIndex index({Past({1, 2}, 3), Past({1, 2, 3, 4})});
  EXPECT_TRUE(Draft(index, {1, 2}).empty()) << "most answers ended here";
}

// Against counting by hand over random answers of few tokens.
TEST(SuffixIndex, IsACountOfWhatFollowed) {
  std::mt19937 random(5);
  SuffixIndex::Answers answers;
  for (int i = 0; i < 60; ++i) {
    Ids tokens(random() % 40 + 1);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 4);
    answers.push_back(Past(std::move(tokens), random() % 3 + 1));
  }
  const SuffixIndex index(answers);
  for (int i = 0; i < 300; ++i) {
    Ids tail(2);
    for (int32_t& token : tail) token = static_cast<int32_t>(random() % 4);
    std::map<int32_t, int> followed;
    int total = 0;
    for (const auto& answer : answers) {
      const Ids& text = answer->tokens;
      for (size_t at = 0; at + 2 <= text.size(); ++at) {
        if (text[at] != tail[0] || text[at + 1] != tail[1]) continue;
        followed[at + 2 < text.size() ? text[at + 2] : -9] += static_cast<int>(answer->times);
        total += static_cast<int>(answer->times);
      }
    }
    int most = 0;
    for (const auto& [token, times] : followed) most = std::max(most, times);
    const Guess guess = index.Draft(tail, 1);
    if (guess.tokens.empty()) {
      EXPECT_TRUE(total == 0 || followed[-9] == most ||
                  double(most) / total * ChanceBehind(2, 1) < SuffixIndex::kLeastChance);
      continue;
    }
    EXPECT_EQ(followed[guess.tokens[0]], most);
    EXPECT_DOUBLE_EQ(guess.expected, double(most) / total * ChanceBehind(2, 1));
  }
}

TEST(SuffixIndex, ChangesGiveWhatBuildingAnewGives) {
  std::mt19937 random(7);
  SuffixIndex::Answers all;
  SuffixIndex changing;
  for (int round = 0; round < 30; ++round) {
    SuffixIndex::Answers added, gone;
    for (uint32_t i = random() % 4; i > 0; --i) {
      Ids tokens(random() % 60 + 1);
      for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 6);
      added.push_back(Past(std::move(tokens)));
    }
    for (uint32_t i = random() % 3; i > 0 && !all.empty(); --i) {
      gone.push_back(all.front());
      all.erase(all.begin());
    }
    all.insert(all.end(), added.begin(), added.end());
    changing = SuffixIndex(changing, added, gone);
    const SuffixIndex anew(all);
    EXPECT_EQ(changing.answers(), anew.answers());
    EXPECT_EQ(changing.tokens(), anew.tokens());
    for (int i = 0; i < 50; ++i) {
      Ids tail(random() % 6 + 2);
      for (int32_t& token : tail) token = static_cast<int32_t>(random() % 6);
      const Guess a = changing.Draft(tail, 8), b = anew.Draft(tail, 8);
      EXPECT_DOUBLE_EQ(a.expected, b.expected);
      EXPECT_EQ(a.tokens.size(), b.tokens.size());
    }
  }
}

TEST(SuffixIndex, LongRepetitionsAreFine) {
  const SuffixIndex index({Past(Ids(5000, 3)), Past(Ids(5000, 3))});
  EXPECT_EQ(Draft(index, Ids(16, 3)).size(), 8u);
}

}  // namespace
}  // namespace kvasir
