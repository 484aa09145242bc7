// How many tokens are drafted, and that drafts change no answer.
#include "engine/speculation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "engine/answer_drafter.h"
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
using test::SameBits;

DraftRecord WithShare(double share) {
  DraftRecord record;
  record.tried = 10;
  record.right = 10 * share;
  return record;
}

// Steps of 1 and 5 rows, the latter `ratio` times as long.
Speculation Seen(double ratio) {
  Speculation speculation;
  for (int i = 0; i < 20; ++i) {
    speculation.RecordStep(1, 0.01);
    speculation.RecordStep(5, 0.01 * ratio);
  }
  return speculation;
}

TEST(Speculation, CostIsTheLineThroughTheSteps) {
  EXPECT_DOUBLE_EQ(Speculation().Cost(9), 2) << "nothing seen";
  Speculation one_size;
  for (int i = 0; i < 5; ++i) one_size.RecordStep(3, 0.02);
  EXPECT_DOUBLE_EQ(one_size.Cost(9), 2) << "steps of one size say nothing of others";
  EXPECT_NEAR(Seen(2).Cost(5), 2, 1e-9);
  EXPECT_NEAR(Seen(2).Cost(9), 3, 1e-9);
  EXPECT_NEAR(Seen(0.5).Cost(9), 1, 1e-9) << "noise: more rows are never cheaper";
}

TEST(Speculation, DraftsWhatBringsMostTokensASecond) {
  EXPECT_EQ(Seen(1).Length(WithShare(0.9), 0), kMostDrafts) << "verifying is free";
  EXPECT_EQ(Seen(5).Length(WithShare(0.9), 0), 0) << "five rows cost as much as five steps";
  const int32_t some = Seen(2).Length(WithShare(0.7), 0);
  EXPECT_GT(some, 0);
  EXPECT_LT(some, kMostDrafts);
  EXPECT_EQ(Seen(2).Length(WithShare(0.05), 0), 0);
  EXPECT_GE(Seen(2).Length(WithShare(0.95), 0), some);
}

TEST(Speculation, WhatADraftCostsCounts) {
  const Speculation seen = Seen(1.2);
  const DraftRecord right = WithShare(0.9);
  EXPECT_EQ(seen.Length(right, 0, 0), kMostDrafts);
  const int32_t some = seen.Length(right, 0, 0.2);
  EXPECT_GT(some, 0);
  EXPECT_LT(some, kMostDrafts);
  EXPECT_EQ(seen.Length(right, 0, 1), 0) << "a draft costs as much as a step";
  EXPECT_EQ(seen.Length(WithShare(0.2), 0, 0.2), 0);
  EXPECT_EQ(seen.Saved(right, 0, 1, 100), 0);
  EXPECT_GT(seen.Saved(right, 0, 0.1, 100), seen.Saved(right, 0, 0.2, 100));
  EXPECT_GT(seen.Saved(right, 0, 0.2, 100), 20);
  EXPECT_LT(seen.Saved(right, 0, 0.2, 100), 100) << "of a hundred steps";
  EXPECT_NEAR(seen.OneRow(), 0.01, 1e-9);
  EXPECT_EQ(Speculation().OneRow(), 0);
}

TEST(Speculation, DeclinedGuessesAreProbed) {
  const Speculation dear = Seen(5);
  DraftRecord record = WithShare(0.5);
  for (int i = 1; i < Speculation::kProbeEvery; ++i) {
    EXPECT_EQ(dear.NextLength(&record, 0), 0) << i;
  }
  EXPECT_EQ(dear.NextLength(&record, 0), 1);
  Speculation::RecordDrafts(1, 0, &record);
  EXPECT_EQ(dear.NextLength(&record, 0), 0);
}

TEST(Speculation, RecordsCountWhatWasTried) {
  DraftRecord record;
  EXPECT_DOUBLE_EQ(record.share(), 0.5);
  Speculation::RecordDrafts(8, 0, &record);  // the first was wrong, seven were not tried
  EXPECT_NEAR(record.share(), 1.8 / 4.6, 1e-12);
  EXPECT_EQ(record.drafted, 8);
  for (int i = 0; i < 20; ++i) Speculation::RecordDrafts(4, 4, &record);
  EXPECT_GT(record.share(), 0.99);
  EXPECT_EQ(record.accepted, 80);
}

// ---- in the engine

class SpeculativeEngine : public testing::Test {
 protected:
  // Four drafts wherever there is a guess: what pays depends on the clock.
  static std::unique_ptr<Engine> MakeEngine(bool speculate) {
    EngineOptions options = test::ExactOptions();
    options.draft_tokens = speculate ? 4 : 0;
    return test::TinyEngine(256, options);
  }
  // An answer of three tokens only, which soon repeats itself.
  static Request Repeating(int32_t max_tokens, uint64_t seed = 3) {
    Request request = Ask({Fresh(RandomTokens(30, seed))}, max_tokens);
    for (const int32_t token : {50, 51, 52}) request.sampling.logit_bias.emplace_back(token, 80.0f);
    return request;
  }
  static void ExpectSame(const Answer& a, const Answer& b) {
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.end.finish, b.end.finish);
    ASSERT_EQ(a.logits.size(), b.logits.size());
    for (size_t i = 0; i < a.logits.size(); ++i) {
      ASSERT_TRUE(SameBits(a.logits[i], b.logits[i])) << "step " << i;
    }
  }
};

TEST_F(SpeculativeEngine, GreedyAnswersAreTheSameBits) {
  const auto plain = MakeEngine(false), drafting = MakeEngine(true);
  int64_t accepted = 0, drafted = 0;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const Answer want = RunOne(*plain, Repeating(60, seed));
    const Answer got = RunOne(*drafting, Repeating(60, seed));
    ExpectSame(got, want);
    EXPECT_EQ(want.end.drafts.drafted, 0);
    accepted += got.end.drafts.accepted;
    drafted += got.end.drafts.drafted;
  }
  EXPECT_GT(accepted, 20) << "of " << drafted << ": this test would see nothing";
  EXPECT_EQ(drafting->stats().drafts_accepted, static_cast<uint64_t>(accepted));
  EXPECT_EQ(drafting->stats().tokens_drafted, static_cast<uint64_t>(drafted));
  EXPECT_LT(drafting->stats().steps, plain->stats().steps);
}

TEST_F(SpeculativeEngine, SampledAnswersAreTheSameToo) {
  const auto plain = MakeEngine(false), drafting = MakeEngine(true);
  int64_t drafted = 0;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    Request request = Repeating(60, seed);
    request.sampling.temperature = 0.7f;
    request.sampling.top_p = 0.9f;
    request.sampling.repetition_penalty = 1.05f;
    request.sampling.seed = seed;
    const Answer got = RunOne(*drafting, request);
    ExpectSame(got, RunOne(*plain, request));
    drafted += got.end.drafts.drafted;
  }
  EXPECT_GT(drafted, 0);
}

TEST_F(SpeculativeEngine, AnswersInAMixAreThoseAlone) {
  const auto plain = MakeEngine(false), drafting = MakeEngine(true);
  std::vector<Request> requests;
  for (uint64_t seed = 1; seed <= 5; ++seed) requests.push_back(Repeating(40, seed));
  requests.push_back(Ask({Fresh(RandomTokens(90, 9))}, 20));
  const auto mixed = RunAll(*drafting, requests);
  for (size_t i = 0; i < requests.size(); ++i) ExpectSame(mixed[i], RunOne(*plain, requests[i]));
}

TEST_F(SpeculativeEngine, AnswersEndWhereTheyWould) {
  const auto plain = MakeEngine(false), drafting = MakeEngine(true);
  for (const int32_t most : {1, 2, 3, 17, 33}) {
    ExpectSame(RunOne(*drafting, Repeating(most)), RunOne(*plain, Repeating(most)));
  }
  const Ids answer = RunOne(*plain, Repeating(40)).tokens;
  for (const size_t at : {size_t{5}, size_t{20}, size_t{39}}) {
    Request request = Repeating(40);
    request.stop_ids = {answer[at]};
    ExpectSame(RunOne(*drafting, request), RunOne(*plain, request));
  }
}

// The default: drafts only where they pay, and the same answers.
TEST_F(SpeculativeEngine, DraftsWhatPays) {
  const auto plain = MakeEngine(false), paying = test::TinyEngine();
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    ExpectSame(RunOne(*paying, Repeating(60, seed)), RunOne(*plain, Repeating(60, seed)));
  }
  EXPECT_GT(paying->stats().tokens_drafted, 0u);  // at least the probes
}

TEST_F(SpeculativeEngine, RequestsMayDeclineDrafts) {
  const auto drafting = MakeEngine(true);
  Request request = Repeating(60);
  request.speculate = false;
  EXPECT_EQ(RunOne(*drafting, request).end.drafts.drafted, 0);
}

TEST_F(SpeculativeEngine, FullStepsLeaveRoomForEveryAnswer) {
  EngineOptions options = test::ExactOptions();
  options.step_rows = 6;
  options.draft_tokens = 8;
  const auto drafting = test::TinyEngine(256, options), plain = MakeEngine(false);
  std::vector<Request> requests;
  for (uint64_t seed = 1; seed <= 5; ++seed) requests.push_back(Repeating(30, seed));
  const auto mixed = RunAll(*drafting, requests);
  for (size_t i = 0; i < requests.size(); ++i) ExpectSame(mixed[i], RunOne(*plain, requests[i]));
}

// ---- a request's own drafter

// Answers that no prompt holds: what past answers know is what there is to draft.
TEST_F(SpeculativeEngine, PastAnswersAreDrafts) {
  const auto plain = MakeEngine(false), drafting = MakeEngine(true);
  Request request = Ask({Fresh(RandomTokens(30, 11))}, 40);
  request.sampling.temperature = 1.5f;
  request.sampling.seed = 4;
  const Answer want = RunOne(*plain, request);
  const Answer before = RunOne(*drafting, request);
  ExpectSame(before, want);
  const auto index = std::make_shared<const SuffixIndex>(
      SuffixIndex::Answers{std::make_shared<const PastAnswer>(PastAnswer{want.tokens, 1})});
  request.drafter = [index] { return std::make_unique<AnswerDrafter>([index] { return index; }); };
  const uint64_t steps = drafting->stats().steps;
  const Answer got = RunOne(*drafting, request);
  ExpectSame(got, want);
  EXPECT_LT(drafting->stats().steps - steps, 20u);
  EXPECT_GT(got.end.drafts.accepted, 20);
  const EngineStats stats = drafting->stats();
  const DraftCounts& answers = stats.drafts[size_t(DraftSource::kAnswers)];
  EXPECT_GT(answers.accepted, 20);
  EXPECT_EQ(stats.drafts[0].drafted + answers.drafted, int64_t(stats.tokens_drafted));
  EXPECT_EQ(stats.drafters_dropped, 0u);
}

// The same guess at every step, right or wrong.
class Insisting final : public Drafter {
 public:
  explicit Insisting(Ids guess) : guess_(std::move(guess)) {}
  void Append(int32_t) override {}
  Guess Draft(int32_t) override { return {guess_, 100, DraftSource::kAnswers}; }

 private:
  Ids guess_;
};

// Pearson's chi-square of three drawn tokens against the exact probabilities, which teacher forcing
// tells. Sound draws exceed df + 4 sqrt(2 df) less than once in a thousand seeds, and these are
// fixed.
TEST_F(SpeculativeEngine, SampledAnswersHaveTheModelsDistribution) {
  constexpr int32_t kChoices = 4, kCells = kChoices * kChoices * kChoices, kDraws = 3000;
  const Ids choices = {50, 51, 52, 53};
  Request request = Ask({Fresh(RandomTokens(30, 21))}, 5);
  for (const int32_t token : choices) request.sampling.logit_bias.emplace_back(token, 80.0f);
  const auto drafting = MakeEngine(true);
  const auto chances = [&](const std::vector<float>& logits) {
    std::vector<double> p;
    double sum = 0;
    for (const int32_t token : choices) sum += p.emplace_back(std::exp(logits[size_t(token)]));
    for (double& value : p) value /= sum;
    return p;
  };
  // Of every path (a, b, any) the logits behind a and behind b; the prompt's before the first.
  Request forced = request;
  forced.only_forced = true;
  for (const int32_t a : choices) {
    for (const int32_t b : choices) forced.forced.push_back({a, b, a});
  }
  const Answer paths = RunOne(*MakeEngine(false), forced);
  ASSERT_EQ(paths.logits.size(), 1u + 2 * kChoices * kChoices);
  std::vector<double> expected;
  for (size_t path = 0; path < kChoices * kChoices; ++path) {
    const double first = chances(paths.logits[0])[path / kChoices];
    const double second = chances(paths.logits[1 + 2 * path])[path % kChoices];
    for (const double third : chances(paths.logits[2 + 2 * path])) {
      expected.push_back(kDraws * first * second * third);
    }
  }
  request.sampling.temperature = 1;
  request.drafter = [&] { return std::make_unique<Insisting>(Ids{51, 52, 50}); };
  std::vector<int> seen(kCells, 0);
  for (uint64_t seed = 0; seed < kDraws; seed += 60) {
    std::vector<Request> requests(60, request);
    for (uint64_t i = 0; i < 60; ++i) requests[i].sampling.seed = seed + i;
    for (const Answer& answer : RunAll(*drafting, std::move(requests), false)) {
      ASSERT_EQ(answer.tokens.size(), 5u);
      ++seen[size_t((answer.tokens[0] - 50) * 16 + (answer.tokens[1] - 50) * 4 + answer.tokens[2] -
                    50)];
    }
  }
  double chi = 0, rare = 0;
  int cells = -1, rare_seen = 0;
  for (size_t i = 0; i < kCells; ++i) {
    if (expected[i] < 5) {
      rare += expected[i];
      rare_seen += seen[i];
      continue;
    }
    chi += (seen[i] - expected[i]) * (seen[i] - expected[i]) / expected[i];
    ++cells;
  }
  if (rare >= 5) {
    chi += (rare_seen - rare) * (rare_seen - rare) / rare;
    ++cells;
  }
  EXPECT_GT(cells, 10);
  EXPECT_LT(chi, cells + 4 * std::sqrt(2.0 * cells)) << cells << " degrees of freedom";
  const EngineStats stats = drafting->stats();
  EXPECT_GT(stats.drafts_accepted, 500u) << "of " << stats.tokens_drafted;
  EXPECT_GT(stats.tokens_drafted, stats.drafts_accepted + 500);
}

class Broken final : public Drafter {
 public:
  Broken(int appends, int drafts) : appends_(appends), drafts_(drafts) {}
  void Append(int32_t) override {
    if (appends_-- == 0) throw std::runtime_error("broken");
  }
  Guess Draft(int32_t) override {
    if (drafts_-- == 0) throw 7;
    return {{-5, 1 << 30}, 100, DraftSource::kAnswers};  // no tokens of any model
  }

 private:
  int appends_, drafts_;
};

TEST_F(SpeculativeEngine, AFailingDrafterIsDroppedAndTheAnswerGoesOn) {
  const auto plain = MakeEngine(false), drafting = MakeEngine(true);
  const Answer want = RunOne(*plain, Repeating(40));
  const std::vector<std::function<std::unique_ptr<Drafter>()>> broken = {
      [] { return std::make_unique<Broken>(0, 99); },
      [] { return std::make_unique<Broken>(5, 99); },
      [] { return std::make_unique<Broken>(99, 0); },
      [] { return std::make_unique<Broken>(99, 5); },
      []() -> std::unique_ptr<Drafter> { throw std::runtime_error("broken"); },
  };
  for (size_t i = 0; i < broken.size(); ++i) {
    Request request = Repeating(40);
    request.drafter = broken[i];
    const Answer got = RunOne(*drafting, request);
    ExpectSame(got, want);
    EXPECT_TRUE(got.end.status.ok());
    EXPECT_GT(got.end.drafts.accepted, 0) << "the others go on";
    EXPECT_EQ(drafting->stats().drafters_dropped, i + 1);
  }
  Request request = Repeating(40);
  request.drafter = [] { return std::make_unique<Broken>(99, 99); };
  ExpectSame(RunOne(*drafting, request), want);
}

}  // namespace
}  // namespace kvasir
