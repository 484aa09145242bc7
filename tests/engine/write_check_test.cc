// CheckWrites, called directly: it works the same in builds whose steps do not ask it.
#include "engine/write_check.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/scheduler.h"

namespace kvasir {
namespace {

using Ids = std::vector<int32_t>;

Ids Tokens(int32_t count) {
  Ids ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

SegmentPlan Fresh(int32_t tokens) { return {Tokens(tokens), {}, {}, {}}; }

std::unique_ptr<Sequence> Make(RequestId id, std::vector<SegmentPlan> segments,
                               int32_t max_tokens = 0) {
  Request request;
  request.prompt.segments = std::move(segments);
  request.max_tokens = max_tokens;
  return std::make_unique<Sequence>(id, std::move(request), 1 << 20);
}

// Two sequences of one step over a pool of 8 blocks: 20 rows in blocks a and b, 3 rows in c.
class WriteCheckTest : public testing::Test {
 protected:
  WriteCheckTest() : first_(Make(41, {Fresh(20)})), second_(Make(42, {Fresh(3)})) {
    std::vector<BlockCopy> copies;
    first_->Place(*pool_.Allocate(2), &copies);
    second_->Place(*pool_.Allocate(1), &copies);
    first_->AppendRows(20, &batch_);
    second_->AppendRows(3, &batch_);
  }

  Status Check() const {
    const std::vector<const Sequence*> sequences = {first_.get(), second_.get()};
    return CheckWrites(batch_, sequences, pool_);
  }
  void ExpectFailure(const std::string& message) const {
    const Status status = Check();
    EXPECT_EQ(status.code(), StatusCode::kInternal);
    EXPECT_EQ(status.message(), message);
  }

  BlockPool pool_{8};
  std::unique_ptr<Sequence> first_, second_;
  StepBatch batch_;
};

TEST_F(WriteCheckTest, OwnBlocksPass) { EXPECT_TRUE(Check().ok()); }

TEST_F(WriteCheckTest, NamesARowOfASharedBlock) {
  const Ids shared = {first_->own_blocks()[1]};
  pool_.Ref(shared);
  const std::string block = std::to_string(shared[0]), slot = std::to_string(shared[0] * 16);
  ExpectFailure("request 41 writes row 16 to slot " + slot + " of block " + block +
                ", which has 2 owners");
  pool_.Unref(shared);
  EXPECT_TRUE(Check().ok());
}

TEST_F(WriteCheckTest, NamesARowOfAFreedBlock) {
  pool_.Unref(second_->own_blocks());
  const int32_t block = second_->own_blocks()[0];
  ExpectFailure("request 42 writes row 20 to slot " + std::to_string(block * 16) + " of block " +
                std::to_string(block) + ", which has 0 owners");
}

// A block with one owner, but another one: also a handle that a cache and a prompt share.
TEST_F(WriteCheckTest, NamesARowOfAnothersBlock) {
  const int32_t block = first_->own_blocks()[0];
  batch_.slots[21] = block * 16 + 5;
  ExpectFailure("request 42 writes row 21 to slot " + std::to_string(block * 16 + 5) +
                " of block " + std::to_string(block) + ", which is not its own");
  const auto chunk = pool_.Own(*pool_.Allocate(1), 16);
  batch_.slots[21] = chunk->ids()[0] * 16;
  EXPECT_EQ(Check().code(), StatusCode::kInternal);
}

TEST_F(WriteCheckTest, NamesASlotOutsideThePool) {
  batch_.slots[0] = 8 * 16;
  ExpectFailure("request 41 writes row 0 to slot 128, the pool has blocks 0 to 7");
  batch_.slots[0] = -1;
  ExpectFailure("request 41 writes row 0 to slot -1, the pool has blocks 0 to 7");
}

// Random prompts over shared chunks, with repaired rows, slices, answers and prefixes that are
// given to a cache while their sequences run on: no step breaks the rule.
TEST(WriteCheck, NoStepOfTheSchedulerWritesASharedBlock) {
  BlockPool pool(200);
  std::mt19937 random(3);
  const auto below = [&](int32_t end) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(end));
  };
  std::vector<std::shared_ptr<const KvBlocks>> chunks, prefixes;
  for (int i = 0; i < 6; ++i) {
    const int32_t tokens = 1 + below(50);
    chunks.push_back(pool.Own(*pool.Allocate(BlocksFor(tokens)), tokens));
  }
  Scheduler scheduler(&pool, {24, 8}, {});
  for (RequestId id = 1; id <= 60; ++id) {
    std::vector<SegmentPlan> segments = {Fresh(1 + below(20))};
    for (int32_t c = below(4); c > 0; --c) {
      const auto& chunk = chunks[static_cast<size_t>(below(6))];
      Ids repaired;
      for (int32_t t = 0; t < chunk->tokens(); ++t) {
        if (below(5) == 0) repaired.push_back(t);
      }
      segments.push_back({Tokens(chunk->tokens()), chunk, ReuseKind::kFused, repaired});
    }
    if (segments.size() > 1) segments.push_back(Fresh(1 + below(9)));
    scheduler.Enqueue(Make(id, std::move(segments), below(30)));
  }
  for (StepPlan plan = scheduler.Schedule(); !plan.empty(); plan = scheduler.Schedule()) {
    const Status status =
        CheckWrites(plan.batch, {plan.sequences.data(), plan.sequences.size()}, pool);
    ASSERT_TRUE(status.ok()) << status.ToString();
    scheduler.Complete(plan);
    for (Sequence* sequence : plan.sequences) {
      if (!sequence->prefill_done()) continue;
      const Ids prefix = sequence->ExactPrefixBlocks();
      if (sequence->answered() == 0 && !prefix.empty()) {
        prefixes.push_back(pool.Share(prefix, static_cast<int32_t>(prefix.size()) * 16));
      }
      if (sequence->max_tokens() > 0) sequence->Answer(7);
      if (sequence->answered() >= sequence->max_tokens()) scheduler.Remove(sequence->id());
    }
  }
  EXPECT_TRUE(scheduler.waiting().empty());
  EXPECT_FALSE(prefixes.empty());
}

}  // namespace
}  // namespace kvasir
