#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/chi_square.h"

namespace kvasir {
namespace {

using testing::HasSubstr;

Sample Draw(const std::vector<float>& logits, const SamplingParams& params, uint64_t position = 0,
            const TokenHistory& history = {}) {
  Sampler sampler;
  auto sample = sampler.Draw(logits, params, history, position);
  EXPECT_TRUE(sample.ok()) << sample.status().ToString();
  return std::move(sample).value();
}

int32_t Token(const std::vector<float>& logits, const SamplingParams& params,
              const TokenHistory& history = {}) {
  return Draw(logits, params, 0, history).token;
}

// Which tokens can come out at all, over many positions.
std::map<int32_t, int> Counts(const std::vector<float>& logits, const SamplingParams& params,
                              int draws) {
  Sampler sampler;
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) {
    auto sample = sampler.Draw(logits, params, {}, static_cast<uint64_t>(i));
    EXPECT_TRUE(sample.ok());
    ++counts[sample.value().token];
  }
  return counts;
}

std::vector<int32_t> Support(const std::vector<float>& logits, const SamplingParams& params) {
  std::vector<int32_t> ids;
  for (const auto& [id, count] : Counts(logits, params, 4000)) ids.push_back(id);
  return ids;
}

TEST(Sampler, GreedyTakesTheLowestIdOfATie) {
  EXPECT_EQ(Token({1, 3, 3, 2}, {}), 1);
  EXPECT_EQ(Token({-5, -7, -5}, {}), 0);
}

// Over lengths that fill no unit of any kind of loop.
TEST(Sampler, GreedyLooksAtEveryPlace) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  std::mt19937 random(3);
  for (const size_t vocab : {1u, 15u, 1024u, 1025u, 5003u}) {
    std::vector<float> logits(vocab);
    for (int turn = 0; turn < 20; ++turn) {
      for (float& logit : logits) logit = -1.0f - static_cast<float>(random() % 1000);
      const size_t first = random() % vocab, second = first + random() % (vocab - first);
      logits[first] = logits[second] = turn % 2 == 0 ? -0.5f : 7.0f;
      EXPECT_EQ(Token(logits, {}), static_cast<int32_t>(first));
      logits[first] = -0.0f;
      logits[second] = first == second ? -0.0f : 0.0f;
      EXPECT_EQ(Token(logits, {}), static_cast<int32_t>(first));
      for (const float bad : {nan, -nan, inf}) {
        const float kept = std::exchange(logits[random() % vocab], bad);
        EXPECT_FALSE(Sampler().Draw(logits, {}, {}, 0).ok());
        *std::find_if(logits.begin(), logits.end(), [](float v) { return !(v < 1e30f); }) = kept;
      }
    }
  }
}

TEST(Sampler, PenaltiesByHand) {
  SamplingParams params;
  params.repetition_penalty = 2.0f;
  TokenHistory history;
  history.seen = {0, 2};
  // 4/2 = 2, 3, -1*2 = -2
  EXPECT_EQ(Token({4, 3, -1}, params, history), 1);

  params = {};
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.25f;
  params.logprobs = 3;
  history = {};
  history.answered = {{0, 3}, {1, 1}};
  // 2 - 0.5 - 0.75 = 0.75; 1.6 - 0.75 = 0.85; 0.8
  const Sample sample = Draw({2, 1.6f, 0.8f}, params, 0, history);
  EXPECT_EQ(sample.token, 1);
  ASSERT_EQ(sample.top.size(), 3u);
  EXPECT_EQ(sample.top[1].id, 2);
  EXPECT_EQ(sample.top[2].id, 0);
  // Differences of log-probabilities are differences of adjusted logits; fp32 rounding of numbers
  // near 1 is 6e-8 each.
  EXPECT_NEAR(sample.top[0].logprob - sample.top[2].logprob, 0.10f, 1e-6f);
}

TEST(Sampler, BiasMovesTheChoiceAndComesBeforeTheRepetitionPenalty) {
  SamplingParams params;
  params.logit_bias = {{2, 10.0f}};
  EXPECT_EQ(Token({1, 0, -4}, params), 2);  // -4 + 10 = 6
  params.repetition_penalty = 8.0f;
  TokenHistory history;
  history.seen = {2};
  EXPECT_EQ(Token({1, 0, -4}, params, history), 0);  // (-4 + 10) / 8 < 1, but -4 * 8 + 10 < 0 too
  EXPECT_EQ(Token({0.5f, 0, -4}, params, history), 2);  // 0.75 > 0.5: bias came first
}

TEST(Sampler, LogprobsAreTheSoftmaxBeforeTemperature) {
  SamplingParams params;
  params.logprobs = 2;
  params.temperature = 0.01f;
  const Sample sample = Draw({std::log(1.0f), std::log(3.0f), std::log(4.0f)}, params);
  EXPECT_EQ(sample.token, 2);
  EXPECT_NEAR(sample.logprob.logprob, std::log(0.5), 1e-6);
  ASSERT_EQ(sample.top.size(), 2u);
  EXPECT_EQ(sample.top[0].id, 2);
  EXPECT_EQ(sample.top[1].id, 1);
  EXPECT_NEAR(sample.top[1].logprob, std::log(0.375), 1e-6);
  params.logprobs = 0;
  EXPECT_TRUE(Draw({1, 2}, params).top.empty());
}

TEST(Sampler, TruncationsByHand) {
  // Probabilities 0.4, 0.3, 0.2, 0.1.
  const std::vector<float> logits = {std::log(0.2f), std::log(0.4f), std::log(0.1f),
                                     std::log(0.3f)};
  SamplingParams params;
  params.temperature = 1.0f;
  EXPECT_EQ(Support(logits, params), (std::vector<int32_t>{0, 1, 2, 3}));
  params.top_k = 2;
  EXPECT_EQ(Support(logits, params), (std::vector<int32_t>{1, 3}));
  params = {.temperature = 1.0f, .top_p = 0.65f};
  EXPECT_EQ(Support(logits, params), (std::vector<int32_t>{1, 3}));
  params = {.temperature = 1.0f, .top_p = 0.75f};
  EXPECT_EQ(Support(logits, params), (std::vector<int32_t>{0, 1, 3}));
  params = {.temperature = 1.0f, .min_p = 0.45f};  // 0.2 / 0.4 = 0.5 stays, 0.1 / 0.4 goes
  EXPECT_EQ(Support(logits, params), (std::vector<int32_t>{0, 1, 3}));
  // top-p counts in what top-k left: 0.4 of 0.7 is 0.57.
  params = {.temperature = 1.0f, .top_k = 2, .top_p = 0.5f};
  EXPECT_EQ(Support(logits, params), (std::vector<int32_t>{1}));
  // At temperature 0.25 the ratios are to the fourth power: 0.3^4 / 0.4^4 = 0.32.
  params = {.temperature = 0.25f, .min_p = 0.4f};
  EXPECT_EQ(Support(logits, params), (std::vector<int32_t>{1}));
}

TEST(Sampler, TopKTiesKeepTheLowestIds) {
  const SamplingParams params = {.temperature = 1.0f, .top_k = 3};
  EXPECT_EQ(Support({1, 1, 1, 1, 1, 1}, params), (std::vector<int32_t>{0, 1, 2}));
}

TEST(Sampler, TinyTemperatureIsGreedy) {
  const SamplingParams params = {.temperature = 1e-30f};
  EXPECT_EQ(Support({1, 2, 1.999f}, params), (std::vector<int32_t>{1}));
}

// 200,000 draws over 12 outcomes: chi-square with 11 degrees of freedom exceeds 37.4 with
// probability 1e-4 under the right distribution; the draws are fixed by the seed.
TEST(Sampler, DrawsFollowTheDistribution) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 1.5f);
  std::vector<float> logits(12);
  for (float& logit : logits) logit = normal(random);
  SamplingParams params;
  params.temperature = 0.8f;
  params.seed = 99;
  constexpr int kDraws = 200000;
  EXPECT_LT(ChiSquare(Counts(logits, params, kDraws), logits, 0.8, kDraws), 37.4);
}

TEST(Sampler, ADrawDependsOnSeedAndPositionAlone) {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  SamplingParams params;
  params.temperature = 1.5f;
  params.seed = 5;
  Sampler shared;
  std::vector<int32_t> forward, backward;
  for (uint64_t p = 0; p < 50; ++p) forward.push_back(shared.Draw(logits, params, {}, p)->token);
  for (uint64_t p = 50; p-- > 0;) backward.push_back(Draw(logits, params, p).token);
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(forward, backward);
  params.seed = 6;
  int same = 0;
  for (uint64_t p = 0; p < 50; ++p) same += Draw(logits, params, p).token == forward[p] ? 1 : 0;
  EXPECT_LT(same, 10);
}

// Against sorting everything: the nucleus found by partial sorts is the right one.
TEST(Sampler, NucleusEqualsFullSort) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  for (int round = 0; round < 20; ++round) {
    std::vector<float> logits(3000);
    for (float& logit : logits) logit = normal(random);
    std::vector<int32_t> order(logits.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::sort(order.begin(), order.end(),
              [&](int32_t a, int32_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
    double total = 0, sum = 0;
    for (const float logit : logits) total += std::exp(double{logit});
    SamplingParams params = {.temperature = 1.0f, .top_p = 0.3f + 0.03f * float(round)};
    size_t nucleus = 0;
    while (sum < double{params.top_p} * total) {
      sum += std::exp(double{logits[size_t(order[nucleus++])]});
    }
    const auto rank_of = [&](int32_t id) {
      return size_t(std::find(order.begin(), order.end(), id) - order.begin());
    };
    for (const auto& [id, count] : Counts(logits, params, 300)) EXPECT_LT(rank_of(id), nucleus);
  }
}

TEST(Sampler, RefusesNanAndInfinity) {
  Sampler sampler;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const auto draw = [&](std::vector<float> logits) {
    return sampler.Draw(logits, {}, {}, 0).status().code();
  };
  EXPECT_EQ(draw({1, nan, 2}), StatusCode::kInternal);
  EXPECT_EQ(draw({1, inf, 2}), StatusCode::kInternal);
  EXPECT_EQ(draw({-inf, -inf}), StatusCode::kInternal);
  EXPECT_EQ(draw({-inf, 1}), StatusCode::kOk);
}

TEST(SamplingCheck, EveryBoundNamesItsField) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto refused = [](const std::string& field, const auto& change) {
    SamplingParams params;
    change(params);
    const Status status = CheckSampling(params, 100);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(status.message(), HasSubstr(field));
  };
  refused("temperature", [&](SamplingParams& p) { p.temperature = -0.1f; });
  refused("temperature", [&](SamplingParams& p) { p.temperature = 2.5f; });
  refused("temperature", [&](SamplingParams& p) { p.temperature = nan; });
  refused("top_k", [&](SamplingParams& p) { p.top_k = -1; });
  refused("top_p", [&](SamplingParams& p) { p.top_p = 0.0f; });
  refused("top_p", [&](SamplingParams& p) { p.top_p = 1.5f; });
  refused("min_p", [&](SamplingParams& p) { p.min_p = 1.0f; });
  refused("repetition_penalty", [&](SamplingParams& p) { p.repetition_penalty = 0.0f; });
  refused("presence_penalty", [&](SamplingParams& p) { p.presence_penalty = 3.0f; });
  refused("frequency_penalty", [&](SamplingParams& p) { p.frequency_penalty = -3.0f; });
  refused("logit_bias", [&](SamplingParams& p) { p.logit_bias = {{100, 1.0f}}; });
  refused("logit_bias", [&](SamplingParams& p) { p.logit_bias = {{-1, 1.0f}}; });
  refused("logit_bias", [&](SamplingParams& p) { p.logit_bias = {{1, 101.0f}}; });
  refused("logit_bias", [&](SamplingParams& p) { p.logit_bias = {{1, nan}}; });
  refused("logprobs", [&](SamplingParams& p) { p.logprobs = -2; });
  refused("logprobs", [&](SamplingParams& p) { p.logprobs = 21; });
  EXPECT_THAT(CheckSampling({.temperature = 2.5f}, 100).message(), HasSubstr("2.5"));
  EXPECT_THAT(CheckSampling({.top_p = 0.0f}, 100).message(), HasSubstr("(0, 1]"));
  SamplingParams edge = {.temperature = 2.0f, .top_k = 100, .top_p = 1.0f, .min_p = 0.0f};
  edge.logit_bias = {{99, -100.0f}};
  edge.logprobs = 20;
  EXPECT_TRUE(CheckSampling(edge, 100).ok());
}

}  // namespace
}  // namespace kvasir
