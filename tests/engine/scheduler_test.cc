// Sequence and Scheduler as data: which rows, slots and segments a step holds.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "engine/batch_part.h"

namespace kvasir {
namespace {

using Ids = std::vector<int32_t>;

Ids Tokens(int32_t count, int32_t first = 0) {
  Ids ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

SegmentPlan Fresh(int32_t tokens, int32_t first = 0) { return {Tokens(tokens, first), {}, {}, {}}; }

SegmentPlan Cached(std::shared_ptr<const KvBlocks> blocks, int32_t tokens, Ids recompute = {}) {
  return {Tokens(tokens), std::move(blocks), ReuseKind::kFused, std::move(recompute)};
}

std::shared_ptr<const KvBlocks> Chunk(BlockPool& pool, int32_t tokens) {
  return pool.Own(*pool.Allocate(BlocksFor(tokens)), tokens);
}

std::unique_ptr<Sequence> Make(RequestId id, std::vector<SegmentPlan> segments,
                               int32_t max_tokens = 1) {
  Request request;
  request.prompt.segments = std::move(segments);
  request.max_tokens = max_tokens;
  return std::make_unique<Sequence>(id, std::move(request), 1 << 20);
}

// Plays the engine: computes the step and gives every sequence that ends its prompt or decodes a
// token; removes the finished.
void Play(Scheduler& scheduler, const StepPlan& plan, std::vector<RequestId>* finished = nullptr) {
  scheduler.Complete(plan);
  for (Sequence* sequence : plan.sequences) {
    if (!sequence->prefill_done()) continue;
    if (sequence->max_tokens() > 0) sequence->Answer(7);
    if (sequence->answered() < sequence->max_tokens()) continue;
    if (finished) finished->push_back(sequence->id());
    scheduler.Remove(sequence->id());
  }
}

TEST(Sequence, RowsOfASparsePromptByHand) {
  BlockPool pool(16);
  const auto chunk = Chunk(pool, 20);  // blocks 0, 1
  // anchor of 3 | chunk of 20, rows 0 and 17 again | question of 2
  auto sequence = Make(1, {Fresh(3, 50), Cached(chunk, 20, {0, 17}), Fresh(2, 60)}, 3);
  EXPECT_EQ(sequence->prompt_tokens(), 25);
  EXPECT_EQ(sequence->rows_left(), 3 + 2 + 2);
  EXPECT_EQ(sequence->BlocksNeeded(), 1 + 2 + 1);  // both blocks of the chunk are written
  EXPECT_EQ(sequence->BlocksHeld(), 4 + 2);

  std::vector<BlockCopy> copies;
  sequence->Place({8, 9, 10, 11}, &copies);
  EXPECT_EQ(copies, (std::vector<BlockCopy>{{chunk->ids()[0], 9}, {chunk->ids()[1], 10}}));

  StepBatch batch;
  sequence->AppendRows(7, &batch);
  EXPECT_EQ(batch.token_ids, (Ids{50, 51, 52, 0, 17, 60, 61}));
  EXPECT_EQ(batch.positions, (Ids{0, 1, 2, 3, 20, 23, 24}));
  EXPECT_EQ(batch.local_positions, (Ids{0, 1, 2, 0, 17, 0, 1}));
  EXPECT_EQ(batch.slots, (Ids{128, 129, 130, 144, 161, 176, 177}));
  ASSERT_EQ(batch.segments.size(), 3u);
  EXPECT_EQ(batch.segments[1].base, 3);
  EXPECT_EQ(batch.segments[1].length, 20);
  EXPECT_EQ(batch.segments[2].base, 23);
  EXPECT_EQ(batch.segments[2].length, 2);
  EXPECT_EQ(batch.block_table, (Ids{8, 9, 10, 11}));
  EXPECT_EQ(batch.logit_rows, (Ids{6}));

  sequence->Advance();
  EXPECT_TRUE(sequence->prefill_done());
  sequence->Answer(70);
  StepBatch decode;
  sequence->AppendRows(1, &decode);
  EXPECT_EQ(decode.token_ids, (Ids{70}));
  EXPECT_EQ(decode.positions, (Ids{25}));
  EXPECT_EQ(decode.local_positions, (Ids{2}));
  EXPECT_EQ(decode.slots, (Ids{178}));
  EXPECT_EQ(decode.segments.back().length, 3);
}

TEST(Sequence, SharedBlocksThatNobodyWritesAreReferencedNotCopied) {
  BlockPool pool(16);
  const auto chunk = Chunk(pool, 40);  // 3 blocks
  auto sequence = Make(1, {Cached(chunk, 40, {20}), Fresh(1)}, 1);
  EXPECT_EQ(sequence->BlocksNeeded(), 2);  // block 1 of the chunk, and the question's
  std::vector<BlockCopy> copies;
  sequence->Place({10, 11}, &copies);
  EXPECT_EQ(copies, (std::vector<BlockCopy>{{chunk->ids()[1], 10}}));
  StepBatch batch;
  sequence->AppendRows(2, &batch);
  EXPECT_EQ(batch.block_table, (Ids{chunk->ids()[0], 10, chunk->ids()[2], 11}));
}

TEST(Sequence, AnswerGoesOnInAPrivateCopyOfAHalfFullSharedBlock) {
  BlockPool pool(16);
  const auto chunk = Chunk(pool, 20);
  // All 20 tokens have KV; the last is computed again for its logits; 14 more tokens fit block 1,
  // of 16 answer tokens the last needs no slot.
  auto sequence = Make(1, {Cached(chunk, 20, {19})}, 16);
  EXPECT_EQ(sequence->BlocksNeeded(), 1 + 1);
  EXPECT_EQ(Make(2, {Cached(chunk, 20, {19})}, 13)->BlocksNeeded(), 1);
  // A chunk that covers 20 of 30 tokens goes on in a copy of its second block.
  EXPECT_EQ(Make(3, {Cached(chunk, 30)}, 1)->BlocksNeeded(), 1);
  // Prefix blocks are full: nothing to copy.
  const auto prefix = Chunk(pool, 32);
  auto continued = Make(4, {Cached(prefix, 33)}, 1);
  EXPECT_EQ(continued->BlocksNeeded(), 1);
  std::vector<BlockCopy> copies;
  continued->Place({15}, &copies);
  EXPECT_TRUE(copies.empty());
}

TEST(Sequence, SlicesSeeOnlyWhatLiesBeforeThem) {
  BlockPool pool(16);
  const auto chunk = Chunk(pool, 20);
  auto sequence = Make(1, {Fresh(3), Cached(chunk, 20, {4, 5}), Fresh(4)}, 1);
  std::vector<BlockCopy> copies;
  sequence->Place(*pool.Allocate(sequence->BlocksNeeded()), &copies);
  StepBatch first;
  sequence->AppendRows(4, &first);  // anchor and row 4 of the chunk
  ASSERT_EQ(first.segments.size(), 2u);
  EXPECT_EQ(first.segments[0].length, 3);
  EXPECT_EQ(first.segments[1].length, 5);  // cut behind the last row
  EXPECT_TRUE(first.logit_rows.empty());
  sequence->Advance();
  StepBatch second;
  sequence->AppendRows(3, &second);  // row 5 and two rows of the question
  ASSERT_EQ(second.segments.size(), 3u);
  EXPECT_EQ(second.segments[1].length, 20);
  EXPECT_EQ(second.segments[2].length, 2);
  sequence->Advance();
  EXPECT_EQ(sequence->rows_left(), 2);
}

TEST(Sequence, CaptureRangesFollowTheSlices) {
  BlockPool pool(8);
  auto sequence = Make(1, {Fresh(3), Fresh(5)}, 0);
  std::vector<BlockCopy> copies;
  sequence->Place(*pool.Allocate(2), &copies);
  EXPECT_EQ(sequence->capture_tokens(), 5);
  StepBatch batch;
  batch.token_ids = {9, 9};  // rows of somebody else come first
  batch.positions = batch.local_positions = batch.slots = {0, 1};
  sequence->AppendRows(5, &batch);
  EXPECT_EQ(sequence->captured_rows().begin, 5);
  EXPECT_EQ(sequence->captured_rows().end, 7);
  EXPECT_EQ(sequence->captured_rows().token, 0);
  EXPECT_TRUE(batch.logit_rows.empty());
  sequence->Advance();
  StepBatch rest;
  sequence->AppendRows(3, &rest);
  EXPECT_EQ(sequence->captured_rows().begin, 0);
  EXPECT_EQ(sequence->captured_rows().end, 3);
  EXPECT_EQ(sequence->captured_rows().token, 2);
  EXPECT_TRUE(rest.logit_rows.empty()) << "a prefill-only request wants no logits";
}

TEST(Sequence, OnlyExactKvFromPositionZeroIsOfferedAsAPrefix) {
  BlockPool pool(16);
  const auto run = [&](std::vector<SegmentPlan> segments) {
    auto sequence = Make(1, std::move(segments), 0);
    std::vector<BlockCopy> copies;
    const Ids own = *pool.Allocate(sequence->BlocksNeeded());
    sequence->Place(own, &copies);
    StepBatch batch;
    sequence->AppendRows(sequence->rows_left(), &batch);
    EXPECT_TRUE(sequence->ExactPrefixBlocks().empty()) << "not before it has been computed";
    sequence->Advance();
    const size_t blocks = sequence->ExactPrefixBlocks().size();
    pool.Unref(own);
    return blocks;
  };
  EXPECT_EQ(run({Fresh(40)}), 2u);
  EXPECT_EQ(run({Fresh(15)}), 0u);
  EXPECT_EQ(run({Fresh(20), Fresh(20)}), 0u);
  const auto blocks = Chunk(pool, 16);
  SegmentPlan reused = Cached(blocks, 33);
  EXPECT_EQ(run({reused}), 0u) << "fused KV is approximate";
  reused.reuse = ReuseKind::kPrefix;
  EXPECT_EQ(run({reused}), 2u);
}

TEST(Scheduler, DecodesRideBesideSlicesUnderTheBudget) {
  BlockPool pool(64);
  Scheduler scheduler(&pool, {.step_rows = 10, .max_sequences = 8}, {});
  scheduler.Enqueue(Make(1, {Fresh(4)}, 5));
  scheduler.Enqueue(Make(2, {Fresh(25)}, 2));
  StepPlan plan = scheduler.Schedule();  // 4 of the first, 6 of the second
  EXPECT_EQ(plan.batch.rows(), 10);
  EXPECT_EQ(plan.batch.logit_rows, (Ids{3}));
  Play(scheduler, plan);
  plan = scheduler.Schedule();  // one decode row, 9 of the second
  EXPECT_EQ(plan.batch.rows(), 10);
  EXPECT_EQ(plan.batch.logit_rows, (Ids{0}));
  EXPECT_EQ(plan.batch.sequences[1].row_end - plan.batch.sequences[1].row_begin, 9);
  Play(scheduler, plan);
  plan = scheduler.Schedule();
  Play(scheduler, plan);
  plan = scheduler.Schedule();  // the second's last row
  EXPECT_EQ(plan.batch.rows(), 2);
  EXPECT_EQ(plan.batch.logit_rows, (Ids{0, 1}));
}

TEST(Scheduler, ARequestMayBoundThePromptsBesideIt) {
  BlockPool pool(64);
  Scheduler scheduler(&pool, {100, 8}, nullptr);
  auto binding = Make(1, {Fresh(70)}, 3);
  binding->request().rows_beside = 16;
  scheduler.Enqueue(std::move(binding));
  scheduler.Enqueue(Make(2, {Fresh(20)}));
  scheduler.Enqueue(Make(3, {Fresh(200)}));
  const auto rows = [](const StepPlan& plan) {
    std::map<RequestId, int32_t> rows;
    for (size_t i = 0; i < plan.sequences.size(); ++i) {
      const SequenceSpan& span = plan.batch.sequences[i];
      rows[plan.sequences[i]->id()] = span.row_end - span.row_begin;
    }
    return rows;
  };
  using Rows = std::map<RequestId, int32_t>;
  for (const Rows& want : {Rows{{1, 70}, {2, 16}}, Rows{{1, 1}, {2, 4}, {3, 12}},
                           Rows{{1, 1}, {3, 16}}, Rows{{3, 100}}, Rows{{3, 72}}}) {
    const StepPlan plan = scheduler.Schedule();
    EXPECT_EQ(rows(plan), want);
    Play(scheduler, plan);
  }
  EXPECT_TRUE(scheduler.running().empty());
}

TEST(Scheduler, PromptsMoveHoweverManyDecode) {
  BlockPool pool(64);
  Scheduler scheduler(&pool, {.step_rows = 2, .max_sequences = 8}, {});
  for (RequestId id = 1; id <= 4; ++id) scheduler.Enqueue(Make(id, {Fresh(5)}, 40));
  std::vector<RequestId> finished;
  for (int step = 0; step < 400 && finished.size() < 4; ++step) {
    const StepPlan plan = scheduler.Schedule();
    ASSERT_LE(plan.batch.rows(), 2);
    Play(scheduler, plan, &finished);
  }
  EXPECT_EQ(finished, (std::vector<RequestId>{1, 2, 3, 4}));
}

TEST(Scheduler, AShortRequestOvertakesALongAnswer) {
  BlockPool pool(64);
  Scheduler scheduler(&pool, {.step_rows = 16, .max_sequences = 8}, {});
  scheduler.Enqueue(Make(1, {Fresh(20)}, 100));
  std::vector<RequestId> finished;
  for (int i = 0; i < 5; ++i) Play(scheduler, scheduler.Schedule(), &finished);
  scheduler.Enqueue(Make(2, {Fresh(8)}, 3));
  for (int i = 0; i < 3; ++i) Play(scheduler, scheduler.Schedule(), &finished);
  EXPECT_EQ(finished, (std::vector<RequestId>{2}));
}

TEST(Scheduler, WaitsForBlocksAndAsksTheReclaimer) {
  BlockPool pool(6);
  std::shared_ptr<const KvBlocks> cached = Chunk(pool, 64);  // 4 blocks that nobody uses
  int32_t asked = 0;
  Scheduler scheduler(&pool, {}, [&](int32_t blocks) {
    asked = blocks;
    cached.reset();
    return 4;
  });
  scheduler.Enqueue(Make(1, {Fresh(64)}, 8));  // 71 slots, 5 blocks
  StepPlan plan = scheduler.Schedule();
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(plan.batch.rows(), 64);
  Play(scheduler, plan);
  scheduler.Enqueue(Make(2, {Fresh(64)}, 1));
  plan = scheduler.Schedule();
  EXPECT_EQ(plan.batch.rows(), 1) << "the second waits while the first answers";
  EXPECT_EQ(scheduler.waiting().size(), 1u);
  EXPECT_FALSE(plan.stalled);
}

TEST(Scheduler, OthersPassAStuckFirstOnlyWhenNothingRuns) {
  BlockPool pool(6);
  const auto pinned = Chunk(pool, 64);
  Scheduler scheduler(&pool, {}, {});
  scheduler.Enqueue(Make(1, {Fresh(64)}, 1));  // needs 4, 2 are free
  scheduler.Enqueue(Make(2, {Fresh(10)}, 1));
  scheduler.Enqueue(Make(3, {Fresh(10)}, 1));
  StepPlan plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0]->id(), 2u);
  EXPECT_FALSE(plan.stalled);
  Play(scheduler, plan);
  plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0]->id(), 3u);
  Play(scheduler, plan);
  plan = scheduler.Schedule();
  EXPECT_TRUE(plan.stalled);
  EXPECT_TRUE(plan.empty());
  EXPECT_EQ(pool.free(), 2);
}

TEST(Scheduler, RemoveGivesBlocksBackWhereverTheSequenceIs) {
  BlockPool pool(8);
  Scheduler scheduler(&pool, {.step_rows = 4, .max_sequences = 1}, {});
  scheduler.Enqueue(Make(1, {Fresh(20)}, 4));
  scheduler.Enqueue(Make(2, {Cached(Chunk(pool, 32), 32, {31})}, 1));
  const StepPlan plan = scheduler.Schedule();
  scheduler.Complete(plan);
  EXPECT_EQ(pool.free(), 8 - 2 - 2);
  EXPECT_NE(scheduler.Remove(1), nullptr);
  EXPECT_EQ(pool.free(), 8 - 2);
  EXPECT_NE(scheduler.Remove(2), nullptr);
  EXPECT_EQ(pool.free(), 8);
  EXPECT_EQ(scheduler.Remove(2), nullptr);
}

TEST(Scheduler, TheLastAdmittedGivesWayWhenAnswersGrow) {
  BlockPool pool(8);
  Scheduler scheduler(&pool, {}, {});
  scheduler.Enqueue(Make(1, {Fresh(16)}, 81));  // 6 blocks in the end, 3 at first
  scheduler.Enqueue(Make(2, {Fresh(16, 50)}, 81));
  std::vector<RequestId> finished;
  size_t alone = 0, together = 0;
  StepPlan plan = scheduler.Schedule();
  for (; plan.sequences.size() == 2; plan = scheduler.Schedule(), ++together) {
    Play(scheduler, plan, &finished);
  }
  // The second answer could not grow into a fifth block: one token from its prompt and 48 more.
  EXPECT_EQ(together, 49u);
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0]->id(), 1u);
  EXPECT_EQ(scheduler.preemptions(), 1u);
  ASSERT_EQ(scheduler.waiting().size(), 1u);
  EXPECT_EQ(scheduler.waiting().front()->answered(), 49);
  EXPECT_EQ(scheduler.waiting().front()->rows_left(), 16 + 49);
  EXPECT_EQ(scheduler.waiting().front()->BlocksNeeded(), 6) << "room for all of the answer";
  for (; finished.empty(); plan = scheduler.Schedule(), ++alone) Play(scheduler, plan, &finished);
  EXPECT_EQ(finished, std::vector<RequestId>{1});
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.batch.rows(), 16 + 49) << "prompt and answer again in one go";
  EXPECT_EQ(plan.batch.token_ids[15], 50 + 15);
  EXPECT_EQ(plan.batch.token_ids[16], 7);
  EXPECT_EQ(plan.batch.positions.back(), 16 + 48);
  EXPECT_EQ(plan.batch.logit_rows.size(), 1u);
  for (; finished.size() == 1; plan = scheduler.Schedule()) Play(scheduler, plan, &finished);
  EXPECT_EQ(scheduler.preemptions(), 1u);
  EXPECT_EQ(pool.free(), 8);
}

// Random requests over shared chunks, cancelled at random: every step obeys the invariants of a
// batch and in the end every block is back.
void PlayRandomTrace(int32_t blocks, int32_t most_answer, uint64_t* preemptions) {
  std::mt19937 random(5);
  BlockPool pool(blocks);
  {
    std::vector<std::shared_ptr<const KvBlocks>> chunks;
    for (int i = 0; i < 6; ++i) chunks.push_back(Chunk(pool, 5 + int32_t(random() % 60)));
    Scheduler scheduler(&pool, {.step_rows = 23, .max_sequences = 5}, {});
    RequestId next = 1;
    std::vector<RequestId> finished;
    for (int step = 0; step < 3000; ++step) {
      if (scheduler.waiting().size() < 4) {
        std::vector<SegmentPlan> segments = {Fresh(1 + int32_t(random() % 30))};
        for (size_t c = random() % 5; c-- > 0;) {
          const auto& chunk = chunks[random() % chunks.size()];
          Ids recompute;
          for (int32_t row = 0; row < chunk->tokens(); ++row) {
            if (random() % 5 == 0) recompute.push_back(row);
          }
          segments.push_back(Cached(chunk, chunk->tokens() + int32_t(random() % 3), recompute));
        }
        segments.push_back(Fresh(1 + int32_t(random() % 20)));
        scheduler.Enqueue(
            Make(next++, std::move(segments), int32_t(random() % uint32_t(most_answer))));
      }
      if (random() % 10 == 0) scheduler.Remove(1 + random() % next);
      const StepPlan plan = scheduler.Schedule();
      ASSERT_LE(plan.batch.rows(), 23);
      std::set<int32_t> written(plan.batch.slots.begin(), plan.batch.slots.end());
      ASSERT_EQ(written.size(), plan.batch.slots.size()) << "two rows write one slot";
      for (const int32_t slot : plan.batch.slots) {
        ASSERT_EQ(pool.RefCount(slot / kBlockTokens), 1) << "a shared block is written";
      }
      for (size_t i = 0; i < plan.sequences.size(); ++i) {
        const StepBatch part = BatchOfSequence(plan.batch, i);
        ASSERT_TRUE(std::is_sorted(part.positions.begin(), part.positions.end()));
        int32_t reach = 0;
        for (const SegmentRef& segment : part.segments) {
          ASSERT_EQ(segment.base, reach) << "segments cover the context without a gap";
          reach = segment.base + segment.length;
        }
        ASSERT_EQ(reach, part.positions.back() + 1);
        for (int32_t row = 0; row < part.rows(); ++row) {
          // The row's slot is where its segment's table says its local position lies.
          const int32_t local = part.local_positions[size_t(row)];
          const int32_t base = part.positions[size_t(row)] - local;
          const auto segment = std::find_if(part.segments.begin(), part.segments.end(),
                                            [&](const SegmentRef& s) { return s.base == base; });
          ASSERT_NE(segment, part.segments.end());
          const int32_t block =
              part.block_table[size_t(segment->first_block + local / kBlockTokens)];
          ASSERT_EQ(part.slots[size_t(row)], block * kBlockTokens + local % kBlockTokens);
        }
      }
      Play(scheduler, plan, &finished);
    }
    EXPECT_GT(finished.size(), 80u);
    *preemptions = scheduler.preemptions();
  }
  EXPECT_EQ(pool.free(), blocks);
}

TEST(Scheduler, RandomTraceKeepsInvariantsAndLeaksNothing) {
  uint64_t preemptions = 0;
  PlayRandomTrace(200, 30, &preemptions);
  EXPECT_EQ(preemptions, 0u);
  PlayRandomTrace(70, 250, &preemptions);
  EXPECT_GT(preemptions, 5u);
}

// A chunk of blocks that are being loaded, layer by layer of two.
struct Coming {
  explicit Coming(BlockPool& pool, int32_t tokens)
      : readiness(std::make_shared<KvReadiness>(2)),
        blocks(pool.Own(*pool.Allocate(BlocksFor(tokens)), tokens, readiness)) {}
  std::shared_ptr<KvReadiness> readiness;
  std::shared_ptr<const KvBlocks> blocks;
};

TEST(Scheduler, AloneARequestBeginsWithItsFirstLayer) {
  BlockPool pool(20);
  Scheduler scheduler(&pool, {}, {});
  const Coming chunk(pool, 32);
  scheduler.Enqueue(Make(1, {Cached(chunk.blocks, 32), Fresh(2)}));
  StepPlan plan = scheduler.Schedule();
  EXPECT_TRUE(plan.empty());
  EXPECT_TRUE(plan.loading);
  EXPECT_FALSE(plan.stalled);
  scheduler.Enqueue(Make(2, {Fresh(3)}, 3));
  plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 1u) << "the later one passes";
  EXPECT_EQ(plan.sequences[0]->id(), 2u);
  EXPECT_FALSE(plan.loading);
  Play(scheduler, plan);
  chunk.readiness->Publish(1);
  plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 1u) << "beside another it needs all layers";
  Play(scheduler, plan);
  Play(scheduler, scheduler.Schedule());
  ASSERT_TRUE(scheduler.running().empty());
  scheduler.Enqueue(Make(3, {Fresh(3)}));
  plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 1u) << "nobody joins a step that waits for layers";
  EXPECT_EQ(plan.sequences[0]->id(), 1u);
  EXPECT_TRUE(plan.awaiting);
}

TEST(Scheduler, BlocksThatAreCopiedNeedAllLayers) {
  BlockPool pool(20);
  Scheduler scheduler(&pool, {}, {});
  const Coming repaired(pool, 32), lost(pool, 32);
  scheduler.Enqueue(Make(1, {Cached(repaired.blocks, 32, {4}), Fresh(2)}));
  repaired.readiness->Publish(1);
  EXPECT_TRUE(scheduler.Schedule().loading);
  repaired.readiness->Publish(2);
  const StepPlan plan = scheduler.Schedule();
  EXPECT_EQ(plan.copies.size(), 1u);
  EXPECT_FALSE(plan.awaiting);
  Play(scheduler, plan);
  scheduler.Enqueue(Make(2, {Cached(lost.blocks, 32), Fresh(2)}));
  EXPECT_TRUE(scheduler.Schedule().loading);
  lost.readiness->Fail();
  EXPECT_EQ(scheduler.Schedule().sequences.size(), 1u) << "to find out";
}

// ---- the order of prompts

std::vector<RequestId> IdsOf(const StepPlan& plan) {
  std::vector<RequestId> ids;
  for (const Sequence* sequence : plan.sequences) ids.push_back(sequence->id());
  return ids;
}

TEST(ScheduleOrder, NamesRoundTrip) {
  for (const char* name : {"fcfs", "sjf", "lpm"}) {
    EXPECT_EQ(ScheduleOrderName(*ParseScheduleOrder(name)), name);
  }
  EXPECT_NE(ParseScheduleOrder("best").status().message().find("fcfs, sjf or lpm"),
            std::string::npos);
}

TEST(ScheduleOrder, ShortPromptsPassLongOnes) {
  for (const ScheduleOrder order : {ScheduleOrder::kArrival, ScheduleOrder::kShortest}) {
    BlockPool pool(64);
    Scheduler scheduler(&pool, {16, 64, order}, nullptr);
    scheduler.Enqueue(Make(1, {Fresh(100)}));
    Play(scheduler, scheduler.Schedule());  // the long one runs
    scheduler.Enqueue(Make(2, {Fresh(5)}));
    const StepPlan plan = scheduler.Schedule();
    const bool first = order == ScheduleOrder::kArrival;
    EXPECT_EQ(IdsOf(plan), first ? std::vector<RequestId>({1}) : std::vector<RequestId>({2, 1}));
    EXPECT_EQ(plan.batch.rows(), 16);  // the rest of the step is the long one's
  }
}

TEST(ScheduleOrder, WaitingPromptsAreAdmittedByRank) {
  BlockPool pool(64);
  Scheduler scheduler(&pool, {8, 1, ScheduleOrder::kShortest}, nullptr);
  for (const int32_t tokens : {40, 20, 30, 20}) {
    scheduler.Enqueue(
        Make(static_cast<RequestId>(scheduler.waiting().size() + 1), {Fresh(tokens)}));
  }
  std::vector<RequestId> finished;
  while (finished.size() < 4) Play(scheduler, scheduler.Schedule(), &finished);
  EXPECT_EQ(finished, (std::vector<RequestId>{2, 4, 3, 1})) << "equals by arrival";
}

TEST(ScheduleOrder, MostReusedFirst) {
  BlockPool pool(64);
  const auto chunk = Chunk(pool, 40);
  Scheduler scheduler(&pool, {16, 64, ScheduleOrder::kMostReused}, nullptr);
  scheduler.Enqueue(Make(1, {Fresh(10)}));
  scheduler.Enqueue(Make(2, {Cached(chunk, 40), Fresh(14)}));
  EXPECT_EQ(IdsOf(scheduler.Schedule()), (std::vector<RequestId>{2, 1}));
}

// However many short prompts come, a long one is done after the rows that its ageing allows.
TEST(ScheduleOrder, NothingWaitsForEver) {
  constexpr int32_t kLong = 64, kShort = 8;
  BlockPool pool(64);
  Scheduler scheduler(&pool, {kShort, 64, ScheduleOrder::kShortest}, nullptr);
  scheduler.Enqueue(Make(1, {Fresh(kLong)}));
  int64_t rows = 0;
  std::vector<RequestId> finished;
  for (RequestId id = 2; std::find(finished.begin(), finished.end(), 1) == finished.end(); ++id) {
    scheduler.Enqueue(Make(id, {Fresh(kShort)}));  // as many as are computed
    const StepPlan plan = scheduler.Schedule();
    rows += plan.batch.rows();
    Play(scheduler, plan, &finished);
    ASSERT_LT(rows, 10000);
  }
  EXPECT_GT(rows, 2 * kLong) << "short ones went first for a while";
  EXPECT_LE(rows, kLong / kAgeing + 2 * kLong);
}

}  // namespace
}  // namespace kvasir
