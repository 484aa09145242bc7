// Many requests at once: shared chunks, prefixes, sampling, order of ending, threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/engine_harness.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::ExactOptions;
using test::Fresh;
using test::Gate;
using test::Ids;
using test::RandomTokens;
using test::Reused;
using test::RunAll;
using test::RunOne;
using test::SameBits;
using test::TinyEngine;
using test::WaitUntil;

TEST(EngineSharing, PrefillOnlyCapturesTheLastSegmentWhateverTheSlices) {
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

TEST(EngineSharing, SegmentsOfOneRequestAreTheNextOnesKv) {
  auto engine = TinyEngine();
  const Ids anchor = RandomTokens(9, 21), chunk = RandomTokens(40, 22), tail = RandomTokens(7, 23);
  const auto stored = test::LoadChunk(*engine, *test::CaptureChunk(*engine, anchor, chunk));
  const int32_t free = engine->stats().blocks_free;
  std::vector<std::shared_ptr<const KvBlocks>> kept;
  Request first = Ask({Fresh(anchor), Reused(chunk, stored, {0, 17, 39}), Fresh(tail)}, 4);
  first.on_segments = [&](auto segments) { kept = std::move(segments); };
  const Answer repaired = RunOne(*engine, first);
  ASSERT_EQ(kept.size(), 3u);
  ASSERT_TRUE(kept[0] && kept[1]);
  EXPECT_EQ(kept[2], nullptr);
  EXPECT_EQ(kept[1]->tokens(), 40);
  // The anchor's block and private copies of all three blocks of the chunk are still held.
  EXPECT_EQ(engine->stats().blocks_free, free - 4);
  const Answer again =
      RunOne(*engine, Ask({Reused(anchor, kept[0]), Reused(chunk, kept[1]), Fresh(tail)}, 4));
  EXPECT_EQ(again.tokens, repaired.tokens);
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(SameBits(again.logits[i], repaired.logits[i]));
  kept.clear();
  EXPECT_EQ(engine->stats().blocks_free, free);
}

TEST(EngineSharing, PrefixBlocksAnswerAsTheWholePrompt) {
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

TEST(EngineSharing, SampledAnswersDependOnTheSeedAndNotOnTheBatch) {
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

TEST(EngineSharing, TheOrderOfPromptsChangesNoAnswer) {
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    requests.push_back(Ask({Fresh(RandomTokens(10 + 37 * (i % 3), 30 + uint64_t(i)))}, 8));
  }
  std::vector<Answer> want;
  for (const ScheduleOrder order :
       {ScheduleOrder::kArrival, ScheduleOrder::kShortest, ScheduleOrder::kMostReused}) {
    EngineOptions options = ExactOptions();
    options.step_rows = 16;
    options.order = order;
    auto engine = TinyEngine(256, options);
    const auto got = RunAll(*engine, requests);
    if (want.empty()) want = got;
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].tokens, want[i].tokens) << i;
      EXPECT_TRUE(SameBits(got[i].logits.back(), want[i].logits.back())) << i;
    }
    EXPECT_GT(engine->stats().longest_queued_ms, 0);
  }
}

// A short request that arrives late is done before a long one that came early.
TEST(EngineSharing, ALateShortRequestFinishesFirst) {
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
TEST(EngineSharing, SixteenOrdersShareEightChunksAndAnswerAsPrivateCopies) {
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
TEST(EngineSharing, ManyThreadsLeakNothing) {
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
