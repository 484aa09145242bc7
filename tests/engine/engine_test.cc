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
using test::Ids;
using test::RandomTokens;
using test::Reused;
using test::RunAll;
using test::RunOne;
using test::SameBits;
using testing::HasSubstr;

const test::Loaded& Tiny() {
  // With tied embeddings a random model only repeats its last token.
  static const test::Loaded* loaded =
      new test::Loaded(test::LoadTiny(test::BestCpu(), {.tied = false}));
  return *loaded;
}

// One tiny block: 3 layers x 2 (K, V) x 2 heads x 16 dims x 16 tokens x 4 bytes.
constexpr size_t kTinyBlockBytes = size_t{3} * 2 * 2 * 16 * 16 * 4;

std::unique_ptr<Engine> TinyEngine(int32_t blocks = 256, EngineOptions options = ExactOptions()) {
  options.pool_bytes = kTinyBlockBytes * static_cast<size_t>(blocks);
  return test::MakeEngine(Tiny(), options);
}

StatusCode SubmitCode(Engine& engine, Request request, std::string* message = nullptr) {
  const auto id = engine.Submit(std::move(request));
  if (message) *message = id.status().message();
  return id.status().code();
}

void WaitUntil(const std::function<bool()>& condition) {
  for (int i = 0; i < 20000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_TRUE(condition());
}

// A gate that holds the engine's thread inside a callback.
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool reached = false, open = false;
  void Pass() {
    std::unique_lock lock(mutex);
    reached = true;
    changed.notify_all();
    changed.wait(lock, [this] { return open; });
  }
  void WaitReached() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return reached; });
  }
  void Open() {
    const std::lock_guard lock(mutex);
    open = true;
    changed.notify_all();
  }
};

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
  options.kv_dtype = DType::kI8;
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

TEST(Engine, PrefillOnlyCapturesTheLastSegmentWhateverTheSlices) {
  const Ids anchor = RandomTokens(9, 7), chunk = RandomTokens(37, 8);
  auto whole = TinyEngine();
  EngineOptions small = ExactOptions();
  small.step_rows = 5;
  auto sliced = TinyEngine(256, small);
  const auto a = test::CaptureChunk(*whole, anchor, chunk);
  const auto b = test::CaptureChunk(*sliced, anchor, chunk);
  EXPECT_EQ(a->layers, 3);
  EXPECT_EQ(a->k.size(), size_t{3 * 37 * 2 * 16});
  EXPECT_TRUE(SameBits(a->k, b->k));
  EXPECT_TRUE(SameBits(a->v, b->v));
}

TEST(Engine, PrefixBlocksAnswerAsTheWholePrompt) {
  auto engine = TinyEngine();
  const Ids prompt = RandomTokens(45, 9);
  std::shared_ptr<const KvBlocks> prefix;
  Request first = Ask({Fresh(prompt)}, 4);
  first.on_prefix = [&](std::shared_ptr<const KvBlocks> blocks) { prefix = std::move(blocks); };
  const Answer whole = RunOne(*engine, first);
  ASSERT_NE(prefix, nullptr);
  EXPECT_EQ(prefix->tokens(), 32);
  EXPECT_EQ(engine->stats().blocks_free, 254);
  const Answer reused = RunOne(*engine, Ask({Reused(prompt, prefix, {}, ReuseKind::kPrefix)}, 4));
  EXPECT_EQ(reused.tokens, whole.tokens);
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(SameBits(reused.logits[i], whole.logits[i]));
  prefix.reset();
  EXPECT_EQ(engine->stats().blocks_free, 256);
}

TEST(Engine, SampledAnswersDependOnTheSeedAndNotOnTheBatch) {
  auto engine = TinyEngine();
  const auto ask = [](uint64_t seed) {
    Request request = Ask({Fresh(RandomTokens(15, 10))}, 12);
    request.sampling.temperature = 1.3f;
    request.sampling.top_p = 0.95f;
    request.sampling.repetition_penalty = 1.1f;
    request.sampling.logprobs = 2;
    request.sampling.seed = seed;
    return request;
  };
  const Ids alone = RunOne(*engine, ask(1)).tokens;
  const auto mixed = RunAll(*engine, {ask(2), ask(1), ask(3), ask(1)});
  EXPECT_EQ(mixed[1].tokens, alone);
  EXPECT_EQ(mixed[3].tokens, alone);
  EXPECT_NE(mixed[0].tokens, alone);
  EXPECT_EQ(mixed[1].events[0].top.size(), 2u);
  EXPECT_EQ(mixed[1].events[0].logprob.id, mixed[1].tokens[0]);
}

// A short request that arrives late is done before a long one that came early.
TEST(Engine, ALateShortRequestFinishesFirst) {
  auto engine = TinyEngine();
  std::mutex mutex;
  std::vector<std::string> order;
  const auto note = [&](const std::string& name) {
    return [&, name](const TokenEvent& event) {
      if (event.finish == FinishReason::kNone) return;
      const std::lock_guard lock(mutex);
      order.push_back(name);
    };
  };
  Gate gate;
  Request slow = Ask({Fresh(RandomTokens(30, 1))}, 300);
  slow.sink = note("long");
  bool first = true;
  slow.on_logits = [&](const std::vector<float>&) {
    if (std::exchange(first, false)) gate.Pass();
  };
  ASSERT_TRUE(engine->Submit(slow).ok());
  gate.WaitReached();  // the long one has its first token
  Request quick = Ask({Fresh(RandomTokens(8, 2))}, 3);
  quick.sink = note("short");
  ASSERT_TRUE(engine->Submit(quick).ok());
  gate.Open();
  WaitUntil([&] {
    const std::lock_guard lock(mutex);
    return order.size() == 2;
  });
  EXPECT_EQ(order, (std::vector<std::string>{"short", "long"}));
}

// 16 requests over the same 8 chunks in 16 orders: every chunk lies in the pool once, and nobody
// can tell from the answer.
TEST(Engine, SixteenOrdersShareEightChunksAndAnswerAsPrivateCopies) {
  auto engine = TinyEngine(1500);
  const Ids anchor = RandomTokens(7, 20);
  std::vector<Ids> chunks;
  std::vector<std::shared_ptr<KvCapture>> captures;
  std::vector<std::shared_ptr<const KvBlocks>> shared;
  int32_t chunk_blocks = 0;
  for (uint64_t c = 0; c < 8; ++c) {
    chunks.push_back(RandomTokens(20 + 3 * static_cast<int32_t>(c), 30 + c));
    captures.push_back(test::CaptureChunk(*engine, anchor, chunks.back()));
    shared.push_back(test::LoadChunk(*engine, *captures.back()));
    chunk_blocks += BlocksFor(captures.back()->tokens);
  }
  EXPECT_EQ(engine->stats().blocks_free, 1500 - chunk_blocks);
  std::mt19937 random(1);
  std::vector<size_t> order = {0, 1, 2, 3, 4, 5, 6, 7};
  std::vector<Request> with_shared, with_copies;
  for (int i = 0; i < 16; ++i) {
    std::shuffle(order.begin(), order.end(), random);
    std::vector<SegmentPlan> a = {Fresh(anchor)}, b = {Fresh(anchor)};
    for (const size_t c : order) {
      // Some requests repair the chunks' first rows, as link(k) does.
      const Ids repair = i % 2 == 0 ? Ids{} : Ids{0, 1, 2, 3};
      a.push_back(Reused(chunks[c], shared[c], repair));
      b.push_back(Reused(chunks[c], test::LoadChunk(*engine, *captures[c]), repair));
    }
    const Ids question = RandomTokens(6, 100 + static_cast<uint64_t>(i));
    a.push_back(Fresh(question));
    b.push_back(Fresh(question));
    with_shared.push_back(Ask(std::move(a), 5));
    with_copies.push_back(Ask(std::move(b), 5));
  }
  std::vector<Answer> copies;
  for (Request& request : with_copies) copies.push_back(RunOne(*engine, std::move(request)));
  with_copies.clear();
  EXPECT_EQ(engine->stats().blocks_free, 1500 - chunk_blocks) << "each chunk's blocks exist once";
  // While they run the pool holds, beside the chunks, only what each writes itself: one block of
  // anchor, one of question and answer, and the first block of each chunk that it repairs.
  int32_t least = 1500;
  for (Request& request : with_shared) {
    request.on_logits = [&](const std::vector<float>&) {
      least = std::min(least, engine->stats().blocks_free);
    };
  }
  const auto answers = RunAll(*engine, std::move(with_shared));
  EXPECT_GE(least, 1500 - chunk_blocks - 8 * 2 - 8 * (2 + 8));
  for (size_t i = 0; i < answers.size(); ++i) {
    ASSERT_TRUE(answers[i].end.status.ok()) << answers[i].end.status.ToString();
    EXPECT_EQ(answers[i].tokens, copies[i].tokens);
    ASSERT_EQ(answers[i].logits.size(), copies[i].logits.size());
    for (size_t step = 0; step < answers[i].logits.size(); ++step) {
      EXPECT_TRUE(SameBits(answers[i].logits[step], copies[i].logits[step])) << i << " " << step;
    }
  }
  EXPECT_EQ(engine->stats().blocks_free, 1500 - chunk_blocks);
}

// Submits, cancels, loads and drops from many threads at once; in the end every block is back.
TEST(Engine, ManyThreadsLeakNothing) {
  EngineOptions options = ExactOptions();
  options.max_sequences = 5;
  options.step_rows = 40;
  auto engine = TinyEngine(80, options);
  const Ids chunk = RandomTokens(30, 40);
  const auto capture = test::CaptureChunk(*engine, {}, chunk);
  std::atomic<int> submitted{0}, ended{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 40; ++i) {
        std::vector<SegmentPlan> segments = {Fresh(RandomTokens(1 + int32_t(random() % 20), i))};
        auto blocks = engine->LoadBlocks(test::PlanesOf(*capture));
        if (blocks.ok()) segments.push_back(Reused(chunk, blocks.value(), {0, 17}));
        segments.push_back(Fresh(RandomTokens(3, i)));
        Request request = Ask(std::move(segments), int32_t(random() % 12));
        request.sink = [&](const TokenEvent& event) {
          ended += event.finish != FinishReason::kNone ? 1 : 0;
        };
        const auto id = engine->Submit(std::move(request));
        if (!id.ok()) continue;
        ++submitted;
        if (random() % 3 == 0) engine->Cancel(id.value());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  WaitUntil([&] { return ended == submitted; });
  EXPECT_EQ(engine->stats().blocks_free, 80);
  EXPECT_EQ(engine->stats().running, 0);
}

}  // namespace
}  // namespace kvasir
