// The engine as its callers see it, on a tiny random model.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/engine/engine_harness.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::ExactOptions;
using test::Fresh;
using test::Gate;
using test::Ids;
using test::kTinyBlockBytes;
using test::RandomTokens;
using test::Reused;
using test::RunAll;
using test::RunOne;
using test::SameBits;
using test::Tiny;
using test::TinyEngine;
using test::WaitUntil;
using testing::HasSubstr;

StatusCode SubmitCode(Engine& engine, Request request, std::string* message = nullptr) {
  const auto id = engine.Submit(std::move(request));
  if (message) *message = id.status().message();
  return id.status().code();
}

TEST(Engine, AnswersAndAccountsByHand) {
  auto engine = TinyEngine();
  const Answer answer = RunOne(*engine, Ask({Fresh(RandomTokens(40, 1))}, 5));
  EXPECT_TRUE(answer.end.status.ok());
  EXPECT_EQ(answer.end.finish, FinishReason::kLength);
  EXPECT_EQ(answer.tokens.size(), 5u);
  ASSERT_EQ(answer.logits.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    const auto top = std::max_element(answer.logits[i].begin(), answer.logits[i].end());
    EXPECT_EQ(answer.tokens[i], top - answer.logits[i].begin());
  }
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.tokens_generated, 5u);
  EXPECT_EQ(stats.requests_finished, 1u);
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.blocks_total, 256);
  EXPECT_EQ(stats.blocks_free, 256);
  EXPECT_GE(answer.end.timing.queued_ms, 0);
  EXPECT_GT(answer.end.timing.prefill_ms, 0);
  EXPECT_GT(answer.end.timing.decode_ms, 0);
}

// Every answer token but the last is fed once, in a row of its own.
TEST(Engine, DecodeComputesOneRowAStep) {
  auto engine = TinyEngine();
  RunOne(*engine, Ask({Fresh(RandomTokens(40, 1))}, 5));
  WaitUntil([&] { return engine->stats().steps == 5; });
  EXPECT_EQ(engine->stats().rows, 40u + 4u);
}

TEST(Engine, StopTokensEndTheAnswerUnlessIgnored) {
  auto engine = TinyEngine();
  const Ids prompt = RandomTokens(20, 2);
  const Ids free = RunOne(*engine, Ask({Fresh(prompt)}, 8)).tokens;
  ASSERT_EQ(free.size(), 8u);
  Request request = Ask({Fresh(prompt)}, 8);
  request.stop_ids = {free[3]};
  const auto first = std::find(free.begin(), free.end(), free[3]);
  const Answer stopped = RunOne(*engine, request);
  EXPECT_EQ(stopped.end.finish, FinishReason::kStop);
  EXPECT_EQ(stopped.tokens, Ids(free.begin(), first));
  request.ignore_eos = true;
  const Answer ignored = RunOne(*engine, request);
  EXPECT_EQ(ignored.end.finish, FinishReason::kLength);
  EXPECT_EQ(ignored.tokens, free);
}

TEST(Engine, AnswerEndsAtTheContextAndALongerPromptIsRefused) {
  EngineOptions options = ExactOptions();
  options.max_context = 50;
  auto engine = TinyEngine(64, options);
  EXPECT_EQ(engine->max_context(), 50);
  const Answer cut = RunOne(*engine, Ask({Fresh(RandomTokens(45, 1))}, 100));
  EXPECT_EQ(cut.tokens.size(), 5u);
  EXPECT_EQ(cut.end.finish, FinishReason::kLength);
  std::string message;
  EXPECT_EQ(SubmitCode(*engine, Ask({Fresh(RandomTokens(51, 1))}, 1), &message),
            StatusCode::kInvalidArgument);
  EXPECT_THAT(message, testing::AllOf(HasSubstr("51"), HasSubstr("50")));
  EXPECT_EQ(SubmitCode(*engine, Ask({Fresh(RandomTokens(50, 1))}, 1)),
            StatusCode::kInvalidArgument);
  EXPECT_TRUE(RunOne(*engine, Ask({Fresh(RandomTokens(50, 1))}, 0)).end.status.ok());
}

TEST(Engine, RefusesBadRequestsWithNumbers) {
  auto engine = TinyEngine(8);
  const auto blocks =
      test::LoadChunk(*engine, *test::CaptureChunk(*engine, {}, RandomTokens(20, 3)));
  const auto refused = [&](Request request, const std::string& what) {
    std::string message;
    EXPECT_EQ(SubmitCode(*engine, std::move(request), &message), StatusCode::kInvalidArgument);
    EXPECT_THAT(message, HasSubstr(what));
  };
  const Ids chunk = RandomTokens(20, 3);
  refused(Ask({}), "nothing to compute");
  refused(Ask({Fresh({1, 2}), Fresh({})}), "nothing to compute");
  refused(Ask({Reused(chunk, blocks)}), "nothing to compute");
  refused(Ask({Reused(chunk, blocks, {18})}), "nothing to compute");
  refused(Ask({Fresh({5, 300})}), "300");
  refused(Ask({Fresh({5, -1})}), "-1");
  refused(Ask({Reused(chunk, blocks, {3, 3, 19})}), "row 3");
  refused(Ask({Reused(chunk, blocks, {20, 19})}), "row 20");
  refused(Ask({Reused(RandomTokens(19, 3), blocks, {18})}), "20 tokens");
  const auto foreign = std::make_shared<const KvBlocks>(Ids{6, 7}, 20, KvBlocks::Release());
  refused(Ask({Reused(chunk, foreign, {19})}), "not allocated");
  const auto few = std::make_shared<const KvBlocks>(Ids{0}, 20, KvBlocks::Release());
  refused(Ask({Reused(chunk, few, {19})}), "1 blocks for 20 tokens");
  refused(Ask({Fresh(RandomTokens(100, 1))}, 40), "9 blocks");
  refused(Ask({Fresh({5})}, -1), "max_tokens is -1");
  Request hot = Ask({Fresh({5})});
  hot.sampling.temperature = 9;
  refused(hot, "temperature");
  EXPECT_EQ(engine->stats().blocks_free, 6);
}

TEST(Engine, RefusesBadOptions) {
  const auto code = [](EngineOptions options) {
    return Engine::Create(Tiny().model, Tiny().backend, options).status().code();
  };
  EngineOptions options = ExactOptions();
  options.pool_bytes = kTinyBlockBytes - 1;
  EXPECT_EQ(code(options), StatusCode::kInvalidArgument);
  options = ExactOptions();
  options.step_rows = 0;
  EXPECT_EQ(code(options), StatusCode::kInvalidArgument);
  options = ExactOptions();
  options.kv_dtype = DType::kF16;
  EXPECT_EQ(code(options), StatusCode::kInvalidArgument);
  options = ExactOptions();
  options.max_context = 1 << 20;
  EXPECT_EQ(code(options), StatusCode::kInvalidArgument);
}

TEST(Engine, RefusesBadPlanes) {
  auto engine = TinyEngine(8);
  const auto capture = test::CaptureChunk(*engine, {}, RandomTokens(20, 3));
  const auto code = [&](const std::function<void(std::vector<KvLayerPlanes>&)>& damage) {
    std::vector<KvLayerPlanes> planes = test::PlanesOf(*capture);
    damage(planes);
    return engine->LoadBlocks(planes).status().code();
  };
  using Planes = std::vector<KvLayerPlanes>;
  EXPECT_EQ(code([](Planes& p) { p.pop_back(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](Planes& p) { p[1].tokens = 19; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](Planes& p) { p[1].v = nullptr; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](Planes& p) { p[0].dtype = DType::kI8; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](Planes& p) { p[0].dtype = DType::kI4; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](Planes& p) { p[0].dtype = DType::kQ4_K; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](Planes& p) {
              for (KvLayerPlanes& plane : p) plane.tokens = 0;
            }),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(engine->stats().blocks_free, 8);
}

TEST(Engine, LoadBlocksAsksTheReclaimerThenSaysTheNumbers) {
  auto engine = TinyEngine(5);
  const auto capture = test::CaptureChunk(*engine, {}, RandomTokens(40, 3));
  auto cached = test::LoadChunk(*engine, *capture);  // 3 of 5
  int32_t asked = 0;
  engine->SetReclaimer([&](int32_t blocks) {
    asked = blocks;
    const bool had = cached != nullptr;
    cached.reset();
    return had ? 3 : 0;
  });
  auto second = test::LoadChunk(*engine, *capture);
  EXPECT_EQ(asked, 1);
  const auto third = engine->LoadBlocks(test::PlanesOf(*capture));
  EXPECT_EQ(third.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(third.status().message(), testing::AllOf(HasSubstr("3 blocks"), HasSubstr("2 of")));
}

TEST(Engine, WaitsForRoomThenFailsTheFirstWhenNobodyMakesAny) {
  EngineOptions options = ExactOptions();
  options.stall_ms = 30;
  auto engine = TinyEngine(6, options);
  const auto capture = test::CaptureChunk(*engine, {}, RandomTokens(60, 3));
  auto pinned = test::LoadChunk(*engine, *capture);  // 4 of 6
  const Answer failed = RunOne(*engine, Ask({Fresh(RandomTokens(60, 1))}, 1));
  EXPECT_EQ(failed.end.finish, FinishReason::kError);
  EXPECT_EQ(failed.end.status.code(), StatusCode::kResourceExhausted);

  auto patient = TinyEngine(6);  // 500 ms
  auto held = test::LoadChunk(*patient, *capture);
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    held.reset();
  });
  EXPECT_TRUE(RunOne(*patient, Ask({Fresh(RandomTokens(60, 1))}, 1)).end.status.ok());
  later.join();
}

// Answers that give up their blocks amid are computed again and go on as if nothing had happened:
// greedy and sampled, with penalties that look at the answer so far, behind a shared chunk.
TEST(Engine, PreemptionChangesNoAnswer) {
  const auto requests = [](Engine& engine) {
    const auto capture = test::CaptureChunk(engine, {}, RandomTokens(20, 3));
    std::vector<Request> all;
    for (int i = 0; i < 6; ++i) {
      std::vector<SegmentPlan> segments;
      if (i % 2 == 0)
        segments.push_back(Reused(RandomTokens(20, 3), test::LoadChunk(engine, *capture)));
      segments.push_back(Fresh(RandomTokens(10 + 3 * i, uint32_t(40 + i))));
      Request request = Ask(std::move(segments), 150);
      request.ignore_eos = true;
      if (i % 3 == 1) {
        request.sampling.temperature = 0.9f;
        request.sampling.seed = uint64_t(i);
        request.sampling.repetition_penalty = 1.1f;
      }
      all.push_back(std::move(request));
    }
    return all;
  };
  auto roomy = TinyEngine(256), tight = TinyEngine(30);
  const std::vector<Answer> want = RunAll(*roomy, requests(*roomy));
  const std::vector<Answer> got = RunAll(*tight, requests(*tight));
  EXPECT_EQ(roomy->stats().preemptions, 0u);
  EXPECT_GT(tight->stats().preemptions, 1u);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(got[i].end.status.ok()) << got[i].end.status.ToString();
    EXPECT_EQ(got[i].tokens, want[i].tokens) << i;
    ASSERT_EQ(got[i].logits.size(), want[i].logits.size());
    for (size_t t = 0; t < got[i].logits.size(); ++t) {
      EXPECT_TRUE(SameBits(got[i].logits[t], want[i].logits[t])) << i << " token " << t;
    }
  }
  WaitUntil([&] { return tight->stats().blocks_free == 30; });
}

TEST(Engine, BlocksMayOutliveTheEngine) {
  auto engine = TinyEngine(8);
  auto blocks = test::LoadChunk(*engine, *test::CaptureChunk(*engine, {}, RandomTokens(20, 3)));
  engine.reset();
  blocks.reset();
}

TEST(Engine, FullQueueIsTyped) {
  EngineOptions options = ExactOptions();
  options.max_sequences = 1;
  options.max_waiting = 2;
  auto engine = TinyEngine(64, options);
  Gate gate;
  Request first = Ask({Fresh({5, 6})}, 2);
  first.on_logits = [&](const std::vector<float>&) { gate.Pass(); };
  ASSERT_TRUE(engine->Submit(first).ok());
  gate.WaitReached();
  EXPECT_TRUE(engine->Submit(Ask({Fresh({5})})).ok());
  EXPECT_TRUE(engine->Submit(Ask({Fresh({5})})).ok());
  std::string message;
  EXPECT_EQ(SubmitCode(*engine, Ask({Fresh({5})}), &message), StatusCode::kResourceExhausted);
  EXPECT_THAT(message, HasSubstr("2 requests wait"));
  EXPECT_EQ(engine->stats().waiting, 2);
  gate.Open();
  WaitUntil([&] { return engine->stats().requests_finished == 3; });
  EXPECT_TRUE(RunOne(*engine, Ask({Fresh({5})})).end.status.ok());
}

TEST(Engine, CancelTakesEffectBeforeTheNextStep) {
  auto engine = TinyEngine(64);
  std::atomic<int> tokens{0};
  std::atomic<int> ends{0};
  RequestId id = 0;
  std::mutex mutex;
  TokenEvent end;
  Request request = Ask({Fresh(RandomTokens(10, 1))}, 500);
  request.sink = [&](const TokenEvent& event) {
    if (event.finish == FinishReason::kNone) {
      const std::lock_guard lock(mutex);
      if (++tokens == 3) engine->Cancel(id);  // from the engine's own thread
    } else {
      const std::lock_guard lock(mutex);
      end = event;
      ++ends;
    }
  };
  {
    const std::lock_guard lock(mutex);
    id = engine->Submit(request).value();
  }
  WaitUntil([&] { return ends == 1; });
  EXPECT_EQ(tokens, 3);
  EXPECT_EQ(end.finish, FinishReason::kCancelled);
  EXPECT_EQ(end.status.code(), StatusCode::kCancelled);
  EXPECT_EQ(engine->stats().blocks_free, 64);
  engine->Cancel(id);       // long gone
  engine->Cancel(9999999);  // never was
  EXPECT_TRUE(RunOne(*engine, Ask({Fresh({5})})).end.status.ok());
}

TEST(Engine, DestructorEndsWhatRunsAndWaits) {
  EngineOptions options = ExactOptions();
  options.max_sequences = 2;
  auto engine = TinyEngine(256, options);
  std::atomic<int> cancelled{0};
  for (int i = 0; i < 6; ++i) {
    Request request = Ask({Fresh(RandomTokens(10, 1))}, 500);
    request.sink = [&](const TokenEvent& event) {
      cancelled += event.finish == FinishReason::kCancelled ? 1 : 0;
    };
    ASSERT_TRUE(engine->Submit(request).ok());
  }
  engine.reset();
  EXPECT_EQ(cancelled, 6);
}

TEST(Engine, AThrowingCallbackFailsItsRequestAlone) {
  auto engine = TinyEngine();
  const Ids prompt = RandomTokens(12, 4);
  const Ids expected = RunOne(*engine, Ask({Fresh(prompt)}, 6)).tokens;
  Request bad = Ask({Fresh(prompt)}, 6);
  std::atomic<int> ended{0};
  bad.sink = [&](const TokenEvent& event) {
    if (event.finish == FinishReason::kError) ++ended;
    throw std::runtime_error("sink broke");
  };
  Request good = Ask({Fresh(prompt)}, 6);
  ASSERT_TRUE(engine->Submit(bad).ok());
  EXPECT_EQ(RunOne(*engine, good).tokens, expected);
  WaitUntil([&] { return ended == 1; });
  EXPECT_EQ(engine->stats().blocks_free, 256);
}

// A chunk whose KV is broken spoils its own request: the others in the batch do not notice.
TEST(Engine, NanInOneRequestFailsThatOneAlone) {
  auto engine = TinyEngine();
  const Ids chunk = RandomTokens(20, 5), question = RandomTokens(5, 6);
  auto capture = test::CaptureChunk(*engine, {}, chunk);
  capture->v[3] = std::numeric_limits<float>::quiet_NaN();
  const auto broken = test::LoadChunk(*engine, *capture);
  const Ids expected = RunOne(*engine, Ask({Fresh(question)}, 6)).tokens;
  const auto answers =
      RunAll(*engine, {Ask({Fresh(question)}, 6), Ask({Reused(chunk, broken), Fresh(question)}, 6),
                       Ask({Fresh(question)}, 6)});
  EXPECT_EQ(answers[0].tokens, expected);
  EXPECT_EQ(answers[2].tokens, expected);
  EXPECT_EQ(answers[1].end.finish, FinishReason::kError);
  EXPECT_EQ(answers[1].end.status.code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace kvasir
