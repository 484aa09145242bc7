#include "engine/prompt_lookup.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

using Ids = std::vector<int32_t>;

PromptPlan Prompt(const std::vector<Ids>& segments) {
  PromptPlan plan;
  for (const Ids& ids : segments) plan.segments.emplace_back().token_ids = ids;
  return plan;
}

TEST(PromptLookup, DraftsWhatFollowedTheLastTokens) {
  PromptLookup lookup(Prompt({{1, 2, 3, 4, 5}, {6, 7, 8}}));
  EXPECT_TRUE(lookup.Draft(8).tokens.empty()) << "its end stands nowhere before";
  lookup.Append(2);
  EXPECT_TRUE(lookup.Draft(8).tokens.empty()) << "one token is no match";
  lookup.Append(3);
  EXPECT_EQ(lookup.Draft(2).tokens, (Ids{4, 5}));
  EXPECT_EQ(lookup.Draft(4).tokens, (Ids{4, 5, 6, 7})) << "across segments";
  EXPECT_EQ(lookup.Draft(99).tokens, (Ids{4, 5, 6, 7, 8, 2, 3}));
  EXPECT_TRUE(lookup.Draft(0).tokens.empty());
}

TEST(PromptLookup, TheLongestMatchCountsThenTheLatest) {
  PromptLookup lookup(Prompt({{9, 1, 2, 50, 8, 1, 2, 60, 7, 1, 2, 70}}));
  for (const int32_t token : {1, 2}) lookup.Append(token);
  EXPECT_EQ(lookup.Draft(1).tokens, (Ids{70}));
  PromptLookup longer(Prompt({{9, 1, 2, 50, 8, 1, 2, 60, 7, 1, 2, 70}}));
  for (const int32_t token : {8, 1, 2}) longer.Append(token);
  EXPECT_EQ(longer.Draft(1).tokens, (Ids{60}));
}

TEST(PromptLookup, FindsRepetitionsOfTheAnswerItself) {
  PromptLookup lookup(Prompt({{1}}));
  for (const int32_t token : {5, 6, 7, 5, 6}) lookup.Append(token);
  EXPECT_EQ(lookup.Draft(8).tokens, (Ids{7, 5, 6}));
}

TEST(PromptLookup, LongerMatchesPromiseMore) {
  PromptLookup lookup(Prompt({{1, 2, 3, 4, 5, 6, 7}}));
  for (const int32_t token : {2, 3}) lookup.Append(token);
  EXPECT_DOUBLE_EQ(lookup.Draft(2).expected, 2.0 / 3 + 2.0 / 4);
  for (const int32_t token : {4, 5, 6}) lookup.Append(token);
  EXPECT_DOUBLE_EQ(lookup.Draft(2).expected, 5.0 / 6 + 5.0 / 7) << "more than is looked up by";
}

TEST(PromptLookup, AnEmptyPromptIsFine) {
  PromptLookup lookup((PromptPlan()));
  EXPECT_TRUE(lookup.Draft(8).tokens.empty());
  lookup.Append(1);
  EXPECT_TRUE(lookup.Draft(8).tokens.empty());
}

}  // namespace
}  // namespace kvasir
