// Requests over blocks that are still being loaded: when they begin, what they answer, and what
// becomes of a load that fails.
#include <gtest/gtest.h>

#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/engine_harness.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::Fresh;
using test::Gate;
using test::Ids;
using test::RandomTokens;
using test::Reused;
using test::RunOne;
using test::SameBits;
using test::TinyEngine;
using test::WaitUntil;

constexpr int32_t kLayers = 3;  // of the tiny model

class PipelinedLoad : public testing::Test {
 protected:
  PipelinedLoad() : engine_(TinyEngine(200)) {
    capture_ = test::CaptureChunk(*engine_, anchor_, chunk_);
    planes_ = test::PlanesOf(*capture_);
  }

  std::unique_ptr<KvFill> Begin() {
    auto fill = engine_->BeginLoad(static_cast<int32_t>(chunk_.size()));
    EXPECT_TRUE(fill.ok()) << fill.status().ToString();
    return std::move(fill).value();
  }
  void Load(KvFill& fill, int32_t first, int32_t end) {
    for (int32_t layer = first; layer < end; ++layer) {
      EXPECT_TRUE(fill.Load(planes_[static_cast<size_t>(layer)]).ok());
    }
  }
  Request Question(std::shared_ptr<const KvBlocks> blocks, Ids recompute = {}) {
    SegmentPlan chunk =
        blocks ? Reused(chunk_, std::move(blocks), std::move(recompute)) : Fresh(chunk_);
    return Ask({Fresh(anchor_), std::move(chunk), Fresh(question_)}, 4);
  }
  // Runs in a thread of its own.
  std::future<Answer> Start(Request request) {
    return std::async(std::launch::async, [this, request = std::move(request)]() mutable {
      return RunOne(*engine_, std::move(request));
    });
  }
  void WaitQueued(int32_t requests) {
    WaitUntil([&] { return engine_->stats().waiting == requests; });
  }
  static void ExpectSame(const Answer& a, const Answer& b) {
    ASSERT_TRUE(a.end.status.ok()) << a.end.status.ToString();
    EXPECT_EQ(a.tokens, b.tokens);
    ASSERT_EQ(a.logits.size(), b.logits.size());
    for (size_t i = 0; i < a.logits.size(); ++i) EXPECT_TRUE(SameBits(a.logits[i], b.logits[i]));
  }
  Answer Loaded(const Ids& recompute = {}) {
    return RunOne(*engine_, Question(test::LoadChunk(*engine_, *capture_), recompute));
  }

  std::unique_ptr<Engine> engine_;
  const Ids anchor_ = RandomTokens(7, 1), chunk_ = RandomTokens(37, 2),
            question_ = RandomTokens(6, 3);
  std::shared_ptr<KvCapture> capture_;
  std::vector<KvLayerPlanes> planes_;
};

TEST_F(PipelinedLoad, AnswersAsIfLoadedBefore) {
  const Answer loaded = Loaded();
  auto fill = Begin();
  std::future<Answer> answer = Start(Question(fill->blocks()));
  WaitQueued(1);
  const uint64_t steps = engine_->stats().steps;
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(engine_->stats().steps, steps) << "its first layer is not there";
  Load(*fill, 0, 1);
  WaitUntil([&] { return engine_->stats().running == 1; });  // it waits within its first step
  Load(*fill, 1, kLayers);
  ExpectSame(answer.get(), loaded);
  fill.reset();
  EXPECT_EQ(engine_->stats().blocks_free, 200);
  EXPECT_EQ(engine_->stats().loads_lost, 0u);
}

// A request that runs already goes on; the other joins it when all of its layers are there.
TEST_F(PipelinedLoad, NobodyWaitsForTheLoadsOfAnother) {
  const Answer loaded = Loaded();
  Gate fifth, fiftieth;
  Request first = Ask({Fresh(RandomTokens(10, 9))}, 200);
  first.on_logits = [&, calls = 0](const std::vector<float>&) mutable {
    if (++calls == 5) fifth.Pass();
    if (calls == 50) fiftieth.Pass();
  };
  std::future<Answer> running = Start(std::move(first));
  fifth.WaitReached();
  auto fill = Begin();
  Load(*fill, 0, kLayers - 1);
  std::future<Answer> answer = Start(Question(fill->blocks()));
  WaitQueued(1);
  fifth.Open();
  fiftieth.WaitReached();
  EXPECT_EQ(engine_->stats().running, 1);
  EXPECT_EQ(engine_->stats().waiting, 1);
  Load(*fill, kLayers - 1, kLayers);
  fiftieth.Open();
  ExpectSame(answer.get(), loaded);
  EXPECT_EQ(running.get().tokens.size(), 200u);
}

// Nor does a later request wait behind one that is being loaded.
TEST_F(PipelinedLoad, LaterRequestsPass) {
  auto fill = Begin();
  std::future<Answer> answer = Start(Question(fill->blocks()));
  WaitQueued(1);
  const Answer other = RunOne(*engine_, Ask({Fresh(RandomTokens(10, 9))}, 3));
  EXPECT_EQ(other.tokens.size(), 3u);
  EXPECT_EQ(engine_->stats().waiting, 1);
  Load(*fill, 0, kLayers);
  EXPECT_TRUE(answer.get().end.status.ok());
}

TEST_F(PipelinedLoad, RowsThatAreRepairedWaitForAllLayers) {
  const Ids repaired = {0, 1, 17};
  const Answer loaded = Loaded(repaired);
  auto fill = Begin();
  Load(*fill, 0, kLayers - 1);
  std::future<Answer> answer = Start(Question(fill->blocks(), repaired));
  WaitQueued(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(engine_->stats().waiting, 1) << "its blocks are copied whole";
  Load(*fill, kLayers - 1, kLayers);
  ExpectSame(answer.get(), loaded);
}

// Whatever the layer at which a load fails, the request computes those tokens and nobody else
// notices.
TEST_F(PipelinedLoad, WhatIsNotLoadedIsComputed) {
  const Answer computed = RunOne(*engine_, Question(nullptr));
  for (int32_t layers = 0; layers < kLayers; ++layers) {
    auto fill = Begin();
    Load(*fill, 0, layers);
    std::future<Answer> answer = Start(Question(fill->blocks()));
    if (layers == 0) WaitQueued(1);
    if (layers > 0) WaitUntil([&] { return engine_->stats().running == 1; });
    fill.reset();
    ExpectSame(answer.get(), computed);
    EXPECT_EQ(engine_->stats().loads_lost, static_cast<uint64_t>(layers) + 1);
  }
  EXPECT_EQ(engine_->stats().blocks_free, 200);
}

// The reply's account is of what was computed in the end.
TEST_F(PipelinedLoad, WhatIsNotLoadedIsNotCountedAsReused) {
  auto fill = Begin();
  Load(*fill, 0, 1);
  Request asked = Question(fill->blocks(), {2, 9});
  PromptAccount account = AccountOf(asked.prompt);
  EXPECT_EQ(account.fused, 35);
  fill.reset();
  const Answer answer = RunOne(*engine_, std::move(asked));
  EXPECT_EQ(answer.end.lost.fused, 35);
  EXPECT_EQ(answer.end.lost.recomputed, 2);
  MoveLost(answer.end.lost, &account);
  EXPECT_EQ(account.computed, account.requested);
  EXPECT_EQ(account.fused + account.recomputed + account.prefix, 0);
}

// Chunks side by side share positions; one that must be computed comes behind them.
TEST_F(PipelinedLoad, ALostChunkLeavesThoseSideBySide) {
  const auto whole = test::LoadChunk(*engine_, *capture_);
  auto fill = Begin();
  SegmentPlan first = Reused(chunk_, whole), second = Reused(chunk_, fill->blocks());
  SegmentPlan third = Reused(chunk_, whole);
  first.side_by_side = second.side_by_side = third.side_by_side = true;
  fill.reset();
  const Answer answer =
      RunOne(*engine_, Ask({Fresh(anchor_), first, second, third, Fresh(question_)}, 4));
  ExpectSame(
      answer,
      RunOne(*engine_, Ask({Fresh(anchor_), first, Fresh(chunk_), third, Fresh(question_)}, 4)));
  EXPECT_EQ(answer.end.lost.fused, 37);
}

TEST_F(PipelinedLoad, ReadingBlocksWaitsForTheirLayer) {
  auto fill = Begin();
  std::vector<float> k, v, loaded_k, loaded_v;
  auto reading = std::async(std::launch::async,
                            [&] { return engine_->ReadBlocks(*fill->blocks(), 1, &k, &v); });
  Load(*fill, 0, 2);
  EXPECT_TRUE(reading.get().ok());
  const auto whole = test::LoadChunk(*engine_, *capture_);
  ASSERT_TRUE(engine_->ReadBlocks(*whole, 1, &loaded_k, &loaded_v).ok());
  EXPECT_TRUE(SameBits(k, loaded_k));
  EXPECT_TRUE(SameBits(v, loaded_v));
  const auto blocks = fill->blocks();
  fill.reset();
  EXPECT_EQ(engine_->ReadBlocks(*blocks, 2, &k, &v).code(), StatusCode::kUnavailable);
}

TEST_F(PipelinedLoad, AFailedLoadBesideOthers) {
  const Answer computed = RunOne(*engine_, Question(nullptr));
  const Request plain = Ask({Fresh(RandomTokens(10, 9))}, 30);
  const Answer alone = RunOne(*engine_, plain);
  Gate gate;
  Request first = plain;
  first.on_logits = [&, calls = 0](const std::vector<float>&) mutable {
    if (++calls == 5) gate.Pass();
  };
  std::future<Answer> running = Start(std::move(first));
  gate.WaitReached();
  auto fill = Begin();
  std::future<Answer> answer = Start(Question(fill->blocks()));
  fill.reset();
  WaitQueued(1);
  gate.Open();
  ExpectSame(answer.get(), computed);
  EXPECT_EQ(running.get().tokens, alone.tokens);
}

TEST_F(PipelinedLoad, CancelledWhileItIsLoaded) {
  auto fill = Begin();
  Request request = Question(fill->blocks());
  std::promise<FinishReason> end;
  request.sink = [&](const TokenEvent& event) {
    if (event.finish != FinishReason::kNone) end.set_value(event.finish);
  };
  const auto id = engine_->Submit(std::move(request));
  ASSERT_TRUE(id.ok());
  engine_->Cancel(*id);
  EXPECT_EQ(end.get_future().get(), FinishReason::kCancelled);
}

TEST_F(PipelinedLoad, BadPlanesAreRefused) {
  EXPECT_EQ(engine_->BeginLoad(0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(engine_->BeginLoad(1 << 20).status().code(), StatusCode::kResourceExhausted);
  auto fill = Begin();
  KvLayerPlanes wrong = planes_[0];
  wrong.tokens = 5;
  EXPECT_EQ(fill->Load(wrong).code(), StatusCode::kInvalidArgument);
  Load(*fill, 0, kLayers);
  EXPECT_EQ(fill->Load(planes_[0]).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(fill->blocks()->complete());
}

}  // namespace
}  // namespace kvasir
