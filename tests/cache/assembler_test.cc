#include "cache/assembler.h"

#include <algorithm>

#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

AssemblyInput Input(FusionPolicy policy) {
  AssemblyInput input;
  input.name_space = "kb";
  input.anchor_ids = RandomTokens(20, 1);
  for (uint32_t i = 0; i < 3; ++i) {
    const int32_t tokens = 40 + static_cast<int32_t>(i);
    input.chunks.push_back(
        {RandomTokens(tokens, 10 + i), FakeBlocks(static_cast<int32_t>(i) * 10, tokens)});
  }
  input.tail_ids = RandomTokens(7, 2);
  input.policy = policy;
  return input;
}

constexpr int64_t kTotal = 20 + 40 + 41 + 42 + 7;

void ExpectExactAccount(const PromptAccount& account) {
  EXPECT_EQ(account.requested,
            account.prefix + account.fused + account.recomputed + account.computed);
}

TEST(Assembler, ExactIsOneSegmentWithNothingReused) {
  PrefixIndex index;
  index.Insert("kb", RandomTokens(20, 1), FakeBlocks(500, 20));
  const Assembly assembly = Assembler(&index).Assemble(Input(FusionPolicy::Exact())).value();
  ASSERT_EQ(assembly.plan.segments.size(), 1u);
  EXPECT_EQ(assembly.plan.segments[0].tokens(), kTotal);
  EXPECT_EQ(assembly.plan.segments[0].blocks, nullptr);
  EXPECT_EQ(assembly.account.computed, kTotal);
  EXPECT_EQ(assembly.account.ChargedFraction(), 1.0);
}

TEST(Assembler, PrefixReusesTheLongestExactBeginning) {
  PrefixIndex index;
  const Assembler assembler(&index);
  const Assembly cold = assembler.Assemble(Input(FusionPolicy::Prefix())).value();
  EXPECT_EQ(cold.account.prefix, 0);
  ASSERT_TRUE(index.InsertPrompt("kb", cold.plan, FakeBlocks(500, kTotal)).ok());
  const Assembly warm = assembler.Assemble(Input(FusionPolicy::Prefix())).value();
  EXPECT_EQ(warm.plan.segments[0].reuse, ReuseKind::kPrefix);
  EXPECT_EQ(warm.account.prefix, kTotal / 16 * 16);
  EXPECT_EQ(warm.account.computed, kTotal % 16);
  ExpectExactAccount(warm.account);
}

std::vector<int32_t> FlatIds(const Assembler& assembler, std::vector<size_t> given,
                             ChunkOrder order) {
  AssemblyInput input = Input(FusionPolicy::Prefix());
  input.policy.order = order;
  std::vector<AssemblyChunk> chunks;
  for (const size_t index : given) chunks.push_back(input.chunks[index]);
  input.chunks = chunks;
  return assembler.Assemble(input).value().plan.segments[0].token_ids;
}

TEST(Assembler, HashOrderMakesEveryPermutationOnePrompt) {
  PrefixIndex index;
  const Assembler assembler(&index);
  const auto first = FlatIds(assembler, {0, 1, 2}, ChunkOrder::kHash);
  EXPECT_EQ(FlatIds(assembler, {2, 0, 1}, ChunkOrder::kHash), first);
  EXPECT_EQ(FlatIds(assembler, {1, 2, 0}, ChunkOrder::kHash), first);
  EXPECT_NE(FlatIds(assembler, {2, 0, 1}, ChunkOrder::kAsGiven),
            FlatIds(assembler, {0, 1, 2}, ChunkOrder::kAsGiven));
}

TEST(Assembler, TreeOrderFollowsWhatIsCachedAndPutsTheBestLast) {
  PrefixIndex index;
  const Assembler assembler(&index);
  // Nothing cached: the first given stands last.
  const auto cold = FlatIds(assembler, {1, 0, 2}, ChunkOrder::kTree);
  const std::vector<int32_t> best = RandomTokens(41, 11);
  EXPECT_TRUE(std::equal(best.begin(), best.end(), cold.end() - 7 - 41));
  // With chunks 2, 0, 1 cached in this order, it is followed although 2 was given first.
  const auto cached = FlatIds(assembler, {2, 0, 1}, ChunkOrder::kAsGiven);
  index.Insert("kb", cached, FakeBlocks(500, static_cast<int32_t>(cached.size())));
  EXPECT_EQ(FlatIds(assembler, {2, 1, 0}, ChunkOrder::kTree), cached);
  EXPECT_EQ(FlatIds(assembler, {0, 1, 2}, ChunkOrder::kTree), cached);
}

TEST(Assembler, PrefixAlwaysLeavesTheLastTokenToCompute) {
  PrefixIndex index;
  AssemblyInput input;
  input.name_space = "kb";
  input.tail_ids = RandomTokens(32, 3);
  input.policy = FusionPolicy::Prefix();
  index.Insert("kb", input.tail_ids, FakeBlocks(0, 32));
  const Assembly assembly = Assembler(&index).Assemble(input).value();
  EXPECT_EQ(assembly.account.prefix, 16);
  EXPECT_EQ(assembly.account.computed, 16);
}

TEST(Assembler, ConcatReusesChunksWhole) {
  AssemblyInput input = Input(FusionPolicy::Concat());
  input.anchor_blocks = FakeBlocks(90, 20);
  const Assembly assembly = Assembler(nullptr).Assemble(input).value();
  ASSERT_EQ(assembly.plan.segments.size(), 5u);
  EXPECT_EQ(assembly.plan.segments[0].reuse, ReuseKind::kPrefix);
  EXPECT_EQ(assembly.plan.segments[1].reuse, ReuseKind::kFused);
  EXPECT_EQ(assembly.plan.segments[4].blocks, nullptr);
  EXPECT_EQ(assembly.account.prefix, 20);
  EXPECT_EQ(assembly.account.fused, 123);
  EXPECT_EQ(assembly.account.recomputed, 0);
  EXPECT_EQ(assembly.account.computed, 7);
  ExpectExactAccount(assembly.account);
}

TEST(Assembler, LinkRecomputesTheFirstRowsOfEachChunk) {
  AssemblyInput input = Input(FusionPolicy::Link(16));
  input.chunks.push_back({RandomTokens(5, 30), FakeBlocks(70, 5)});  // shorter than k
  const Assembly assembly = Assembler(nullptr).Assemble(input).value();
  ASSERT_EQ(assembly.plan.segments.size(), 6u);
  EXPECT_EQ(assembly.plan.segments[1].recompute.front(), 0);
  EXPECT_EQ(assembly.plan.segments[1].recompute.back(), 15);
  EXPECT_EQ(assembly.plan.segments[4].recompute.size(), 5u);
  EXPECT_EQ(assembly.account.recomputed, 3 * 16 + 5);
  EXPECT_EQ(assembly.account.fused, 123 - 48);
  EXPECT_EQ(assembly.account.computed, 20 + 7);  // an anchor without KV is computed
  ExpectExactAccount(assembly.account);
}

TEST(Assembler, ParallelChunksStandSideBySide) {
  AssemblyInput input = Input(*ParsePolicy("parallel(0.9,0.8)"));
  input.anchor_blocks = FakeBlocks(90, 20);
  const int32_t second = static_cast<int32_t>(input.chunks[1].token_ids.size());
  input.chunks[1].blocks = nullptr;
  const Assembly assembly = Assembler(nullptr).Assemble(input).value();
  EXPECT_FLOAT_EQ(assembly.plan.context.temperature, 0.9f);
  EXPECT_FLOAT_EQ(assembly.plan.context.scale, 0.8f);
  // The one without blocks comes behind the others, as the tail does.
  const int32_t widest =
      std::max(assembly.plan.segments[1].tokens(), assembly.plan.segments[3].tokens());
  EXPECT_EQ(BasesOf(assembly.plan),
            (std::vector<int32_t>{0, 20, 20 + widest, 20, 20 + widest + second}));
  EXPECT_EQ(PositionsOf(assembly.plan), 20 + widest + second + 7);
  ExpectExactAccount(assembly.account);
}

TEST(Assembler, ChunksWithoutBlocksAreComputedInTheirPlace) {
  AssemblyInput input = Input(FusionPolicy::Link(8));
  input.chunks[1].blocks = nullptr;
  const Assembly assembly = Assembler(nullptr).Assemble(input).value();
  const SegmentPlan& missing = assembly.plan.segments[2];
  EXPECT_EQ(missing.tokens(), 41);
  EXPECT_EQ(missing.reuse, ReuseKind::kNone);
  EXPECT_TRUE(missing.recompute.empty());
  EXPECT_EQ(assembly.account.computed, 20 + 41 + 7);
  ExpectExactAccount(assembly.account);
}

TEST(Assembler, AnchorComesFromThePrefixIndex) {
  PrefixIndex index;
  AssemblyInput input = Input(FusionPolicy::Concat());
  index.Insert("kb", input.anchor_ids, FakeBlocks(90, 20));
  const Assembly assembly = Assembler(&index).Assemble(input).value();
  EXPECT_EQ(assembly.account.prefix, 16);
  EXPECT_EQ(assembly.account.computed, 4 + 7);
}

TEST(Assembler, WithoutChunksFusedMeansPrefix) {
  PrefixIndex index;
  AssemblyInput input = Input(FusionPolicy::Link(16));
  input.chunks.clear();
  const Assembly assembly = Assembler(&index).Assemble(input).value();
  ASSERT_EQ(assembly.plan.segments.size(), 1u);
  EXPECT_TRUE(index.InsertPrompt("kb", assembly.plan, FakeBlocks(0, 16)).ok());
}

TEST(Assembler, FusedPlansNeverEnterThePrefixIndex) {
  PrefixIndex index;
  const Assembly assembly = Assembler(&index).Assemble(Input(FusionPolicy::Concat())).value();
  EXPECT_FALSE(index.InsertPrompt("kb", assembly.plan, FakeBlocks(0, 16)).ok());
}

TEST(Assembler, RandomPromptsAccountToTheToken) {
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    AssemblyInput input;
    input.policy = *ParsePolicy(
        std::vector<const char*>{"exact", "prefix", "concat", "link(8)"}[random() % 4]);
    input.anchor_ids = RandomTokens(static_cast<int32_t>(random() % 40), random());
    int64_t total = static_cast<int64_t>(input.anchor_ids.size());
    for (uint32_t i = 0, n = random() % 5; i < n; ++i) {
      const auto tokens = static_cast<int32_t>(random() % 60);  // some are empty
      total += tokens;
      input.chunks.push_back(
          {RandomTokens(tokens, random()), random() % 4 == 0 ? nullptr : FakeBlocks(0, tokens)});
    }
    input.tail_ids = RandomTokens(1 + static_cast<int32_t>(random() % 20), random());
    total += static_cast<int64_t>(input.tail_ids.size());
    const Assembly assembly = Assembler(nullptr).Assemble(input).value();
    ASSERT_EQ(assembly.account.requested, total);
    ExpectExactAccount(assembly.account);
    const SegmentPlan& last = assembly.plan.segments.back();
    ASSERT_GT(last.tokens(), last.reused());
  }
}

TEST(Assembler, WhatDoesNotFitIsRefused) {
  AssemblyInput no_tail = Input(FusionPolicy::Concat());
  no_tail.tail_ids.clear();
  EXPECT_EQ(Assembler(nullptr).Assemble(no_tail).status().code(), StatusCode::kInvalidArgument);
  AssemblyInput wrong_chunk = Input(FusionPolicy::Concat());
  wrong_chunk.chunks[0].blocks = FakeBlocks(0, 39);
  EXPECT_EQ(Assembler(nullptr).Assemble(wrong_chunk).status().code(), StatusCode::kInternal);
  AssemblyInput wrong_anchor = Input(FusionPolicy::Concat());
  wrong_anchor.anchor_blocks = FakeBlocks(0, 19);  // neither all nor whole blocks
  EXPECT_EQ(Assembler(nullptr).Assemble(wrong_anchor).status().code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace kvasir
