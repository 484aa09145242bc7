// Key balances, and engines whose pool is of kI8.
#include "engine/key_balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/engine/engine_harness.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::Fresh;
using test::Ids;
using test::RandomTokens;
using test::RunAll;
using test::RunOne;
using test::Tiny;

EngineOptions Int8Options() {
  EngineOptions options = test::ExactOptions();
  options.kv_dtype = DType::kI8;
  return options;
}

std::vector<float> Balance(const Ids& ids) {
  auto balance = MeasureKeyBalance(*Tiny().model, *Tiny().backend, ids);
  EXPECT_TRUE(balance.ok());
  return balance.ok() ? *balance : std::vector<float>();
}

TEST(KeyBalance, IsTheRootOfThePairsMeanMagnitude) {
  const Ids ids = RandomTokens(48, 7);
  const std::vector<float> balance = Balance(ids);
  auto engine = test::TinyEngine();
  const auto capture = test::CaptureChunk(*engine, {}, ids);
  const size_t dim = static_cast<size_t>(capture->head_dim);
  const size_t width = dim * static_cast<size_t>(capture->kv_heads);
  ASSERT_EQ(balance.size(), width * static_cast<size_t>(capture->layers));
  for (size_t i = 0; i < balance.size(); i += 2) {  // llama: neighbours are a pair
    const float* key = &capture->k[i / width * capture->LayerStride() + i % width];
    double sum = 0;
    for (size_t t = 0; t < ids.size(); ++t) sum += std::hypot(key[t * width], key[t * width + 1]);
    // It is measured over a pool of bf16: keys of later layers are off by 2^-8 of themselves.
    ASSERT_NEAR(balance[i], std::sqrt(sum / 48), 0x1p-8 * balance[i]) << i;
    ASSERT_EQ(balance[i], balance[i + 1]);
  }
}

TEST(KeyBalance, EveryBalanceIsUsable) {
  for (const int32_t count : {1, 5, 1000}) {
    for (const float value : Balance(RandomTokens(count, 8))) {
      ASSERT_TRUE(std::isfinite(value) && value > 0);
    }
  }
}

TEST(Int8Pool, HoldsNearlyFourTimesTheBlocksOfF32) {
  EngineOptions options = Int8Options();
  options.pool_bytes = 100 * test::kTinyBlockBytes;
  // 16 dimensions and two scales of four bytes a head: 40 bytes instead of 128.
  EXPECT_EQ(test::MakeEngine(Tiny(), options)->stats().blocks_total, 320);
}

TEST(Int8Pool, AnswersAreTheSameAloneAndInAMix) {
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    const auto seed = static_cast<uint64_t>(i);
    requests.push_back(Ask({Fresh(RandomTokens(5 + 23 * i, 40 + seed))}, 12));
  }
  auto engine = test::MakeEngine(Tiny(), Int8Options());
  std::vector<Answer> alone;
  for (const Request& request : requests) alone.push_back(RunOne(*engine, request));
  const std::vector<Answer> mixed = RunAll(*engine, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(alone[i].tokens, mixed[i].tokens);
    ASSERT_EQ(alone[i].logits.size(), mixed[i].logits.size());
    for (size_t step = 0; step < alone[i].logits.size(); ++step) {
      ASSERT_TRUE(test::SameBits(alone[i].logits[step], mixed[i].logits[step]));
    }
  }
}

TEST(Int8Pool, AnswersLikeF32) {
  const Request request = Ask({Fresh(RandomTokens(90, 3))});
  auto exact = test::TinyEngine();
  auto engine = test::MakeEngine(Tiny(), Int8Options());
  const Answer want = RunOne(*exact, request), got = RunOne(*engine, request);
  EXPECT_GT(test::MaxDifference(want.logits[0], got.logits[0]), 0);
  EXPECT_LT(test::KlDivergence(want.logits[0], got.logits[0]), 1e-3);
}

// A chunk whose values are broken spoils its own request alone, although sums are integers.
TEST(Int8Pool, NanInOneRequestFailsThatOneAlone) {
  auto engine = test::MakeEngine(Tiny(), Int8Options());
  const Ids chunk = RandomTokens(20, 5), question = RandomTokens(5, 6);
  auto capture = test::CaptureChunk(*engine, {}, chunk);
  capture->v[3] = std::numeric_limits<float>::quiet_NaN();
  const auto broken = test::LoadChunk(*engine, *capture);
  const Ids expected = RunOne(*engine, Ask({Fresh(question)}, 6)).tokens;
  const auto answers = RunAll(
      *engine, {Ask({Fresh(question)}, 6), Ask({test::Reused(chunk, broken), Fresh(question)}, 6)});
  EXPECT_EQ(answers[0].tokens, expected);
  EXPECT_EQ(answers[1].end.status.code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace kvasir
