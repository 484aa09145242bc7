// Answers drafted by another request: what is relayed, that nothing of it changes the answer, and
// that the draft run goes with it.
#include "engine/draft_run.h"

#include <gtest/gtest.h>

#include <future>
#include <stdexcept>

#include "engine/relay_drafter.h"
#include "tests/engine/engine_harness.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::Fresh;
using test::Ids;
using test::RandomTokens;
using test::RunOne;
using test::SameBits;

// ---- the drafter

TEST(RelayDrafter, GuessesTheRestForAsLongAsBothAgree) {
  RelayDrafter drafter({5, 6, 7, 8, 9});
  EXPECT_EQ(drafter.Draft(3).tokens, (Ids{5, 6, 7}));
  drafter.Append(5);
  drafter.Append(6);
  const Guess guess = drafter.Draft(64);
  EXPECT_EQ(guess.tokens, (Ids{7, 8, 9}));
  EXPECT_EQ(guess.source, DraftSource::kDraftRun);
  EXPECT_TRUE(guess.whole);
  EXPECT_EQ(guess.expected, 3);
  drafter.Append(0);
  EXPECT_TRUE(drafter.Draft(64).tokens.empty());
  drafter.Append(8);
  EXPECT_TRUE(drafter.Draft(64).tokens.empty()) << "once wrong, wrong for good";
}

TEST(RelayDrafter, BehindADifferenceItGoesOnWhereBothDoAgain) {
  RelayDrafter drafter({5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20});
  for (const int32_t token : {5, 6, 0, 7}) drafter.Append(token);
  EXPECT_TRUE(drafter.Draft(64).tokens.empty()) << "one token is no match";
  drafter.Append(8);
  const Guess guess = drafter.Draft(64);
  ASSERT_FALSE(guess.tokens.empty());
  EXPECT_EQ(guess.tokens[0], 9);
  EXPECT_LE(guess.tokens.size(), size_t(kMostDrafts));
  EXPECT_EQ(guess.source, DraftSource::kDraftRun);
  EXPECT_FALSE(guess.whole) << "asked how many pay, like others";
}

TEST(RelayDrafter, EndsWithTheAnswer) {
  RelayDrafter drafter({5});
  drafter.Append(5);
  EXPECT_TRUE(drafter.Draft(8).tokens.empty());
  drafter.Append(6);
  EXPECT_TRUE(drafter.Draft(8).tokens.empty());
  EXPECT_TRUE(RelayDrafter({}).Draft(8).tokens.empty());
}

// ---- in the engine

class DraftRuns : public testing::Test {
 protected:
  static constexpr int32_t kPrompt = 16 * DraftRun::kRowsBesideRead;

  void SetUp() override { engine_ = test::TinyEngine(1024); }

  static Request Exact(int32_t max_tokens, uint64_t seed = 5) {
    return Ask({Fresh(RandomTokens(kPrompt, seed))}, max_tokens);
  }
  // Drawn from a flat distribution: nobody but a draft run guesses it.
  static Request Sampled(int32_t max_tokens) {
    Request request = Exact(max_tokens);
    request.sampling.temperature = 1.5f;
    request.sampling.seed = 4;
    return request;
  }
  // One that is read, so that it has the time of 16 slices. It waits with its first token until the
  // exact run is submitted too: how far it comes is not for the machine to say.
  std::shared_ptr<DraftRun> NewRun(std::function<void(int32_t)> on_token = nullptr) {
    return std::make_shared<DraftRun>(std::chrono::steady_clock::now(),
                                      [submitted = submitted_, on_token](int32_t token) {
                                        submitted.wait();
                                        if (on_token) on_token(token);
                                      });
  }
  void Release() {
    if (!std::exchange(released_, true)) submit_.set_value();
  }
  Answer Run(const std::shared_ptr<DraftRun>& run, const PromptPlan& draft, Request exact) {
    Answer answer;
    std::promise<void> ended;
    exact.on_logits = [&](const std::vector<float>& logits) { answer.logits.push_back(logits); };
    exact.sink = [&](const TokenEvent& event) {
      if (event.token >= 0) answer.tokens.push_back(event.token);
      if (event.finish == FinishReason::kNone) return;
      answer.end = event;
      ended.set_value();
    };
    begun_ = run->Begin(*engine_, draft, &exact);
    const auto id = engine_->Submit(std::move(exact));
    Release();
    EXPECT_TRUE(id.ok()) << id.status().ToString();
    if (id.ok()) ended.get_future().wait();
    ExpectNothingLeft();
    return answer;
  }
  void ExpectNothingLeft() {
    test::WaitUntil([this] {
      const EngineStats stats = engine_->stats();
      return stats.running == 0 && stats.waiting == 0 && stats.blocks_free == stats.blocks_total;
    });
  }
  static void ExpectSame(const Answer& a, const Answer& b) {
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.end.finish, b.end.finish);
    ASSERT_EQ(a.logits.size(), b.logits.size());
    for (size_t i = 0; i < a.logits.size(); ++i) {
      ASSERT_TRUE(SameBits(a.logits[i], b.logits[i])) << "step " << i;
    }
  }

  std::promise<void> submit_;
  const std::shared_future<void> submitted_{submit_.get_future()};
  bool released_ = false;
  std::unique_ptr<Engine> engine_;
  Status begun_;
};

// The draft is made over the very same prompt, so all of it is right.
TEST_F(DraftRuns, ARightDraftIsVerifiedInOneStep) {
  const Answer want = RunOne(*test::TinyEngine(), Sampled(40));
  const auto run = NewRun();
  const Answer got = Run(run, Sampled(40).prompt, Sampled(40));
  EXPECT_TRUE(begun_.ok()) << begun_.ToString();
  ExpectSame(got, want);
  const DraftRunReport report = run->report();
  EXPECT_TRUE(report.status.ok()) << report.status.ToString();
  // One token at least with each of the slices behind the draft's own prompt.
  EXPECT_GE(report.drafted, 12);
  EXPECT_EQ(report.stood, report.drafted);
  EXPECT_GE(report.first_draft_ms, 0);
  EXPECT_GE(report.first_token_ms, report.first_draft_ms);
  const DraftCounts relayed = engine_->stats().drafts[size_t(DraftSource::kDraftRun)];
  EXPECT_EQ(relayed.drafted, report.drafted - 1) << "the first came with the prompt";
  EXPECT_EQ(relayed.accepted, relayed.drafted);
  EXPECT_GE(got.end.drafts.accepted, relayed.accepted);
  // One step verified them all: more than guesses of others may have.
  EXPECT_GT(relayed.accepted, kMostDrafts);
  EXPECT_LT(engine_->stats().steps, 16u + 4 + (40 - size_t(relayed.accepted)) + 4);
}

TEST_F(DraftRuns, GreedyAnswersAreTheSameBits) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const Answer want = RunOne(*test::TinyEngine(), Exact(24, seed));
    for (const uint64_t drafted_over : {seed, seed + 100}) {
      const auto unread = std::make_shared<DraftRun>(std::chrono::steady_clock::now());
      const auto run = seed == 2 ? unread : NewRun();
      ExpectSame(Run(run, Exact(24, drafted_over).prompt, Exact(24, seed)), want);
    }
  }
}

TEST_F(DraftRuns, AWrongDraftIsCancelledAndCostsNoAnswer) {
  const Answer want = RunOne(*test::TinyEngine(), Sampled(30));
  const auto run = NewRun();
  PromptPlan other;
  other.segments = {Fresh(RandomTokens(20, 77))};
  const Answer got = Run(run, other, Sampled(30));
  ExpectSame(got, want);
  const DraftRunReport report = run->report();
  EXPECT_GT(report.drafted, 8);
  EXPECT_LT(report.drafted, 30) << "it was cancelled at the first token";
  EXPECT_LT(report.stood, report.drafted);
}

TEST_F(DraftRuns, ADraftThatEndsEarlyHelpsAsFarAsItGoes) {
  const Answer want = RunOne(*test::TinyEngine(), Sampled(30));
  Request exact = Sampled(30);
  exact.stop_ids = {want.tokens[6]};
  const auto run = NewRun();
  const Answer got = Run(run, exact.prompt, exact);
  EXPECT_EQ(got.end.finish, FinishReason::kStop);
  EXPECT_LE(got.tokens.size(), 6u);
  EXPECT_EQ(run->report().drafted, int64_t(got.tokens.size()));
  EXPECT_EQ(run->report().stood, int64_t(got.tokens.size()));
}

TEST_F(DraftRuns, ShortAnswersNeedNoDraft) {
  for (const int32_t tokens : {1, 2}) {
    const Answer want = RunOne(*test::TinyEngine(), Sampled(tokens));
    ExpectSame(Run(NewRun(), Sampled(tokens).prompt, Sampled(tokens)), want);
  }
}

TEST_F(DraftRuns, TheOtherDraftersOfTheAnswerStay) {
  const Answer want = RunOne(*test::TinyEngine(), Sampled(40));
  // Guesses one token, always the same, which is never one of the answer's.
  class Once final : public Drafter {
   public:
    explicit Once(int* asked) : asked_(asked) {}
    void Append(int32_t) override {}
    Guess Draft(int32_t most) override {
      ++*asked_;
      EXPECT_LE(most, kMostDrafts);
      return {};
    }

   private:
    int* asked_;
  };
  int asked = 0;
  Request exact = Sampled(40);
  exact.drafter = [&asked] { return std::make_unique<Once>(&asked); };
  ExpectSame(Run(NewRun(), exact.prompt, exact), want);
  EXPECT_GT(asked, 5);
}

TEST_F(DraftRuns, OneThatIsRefusedLeavesTheAnswerAlone) {
  const Answer want = RunOne(*test::TinyEngine(), Sampled(20));
  PromptPlan invalid;
  invalid.segments = {Fresh({1 << 30})};
  const auto run = NewRun();
  ExpectSame(Run(run, invalid, Sampled(20)), want);
  EXPECT_EQ(begun_.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(run->report().status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(run->report().drafted, 0);
  EXPECT_GE(run->report().first_token_ms, 0);
  // The answer alone has its place in this pool, the two have not.
  engine_ = test::TinyEngine(100);
  ExpectSame(Run(NewRun(), Sampled(20).prompt, Sampled(20)), want);
  EXPECT_EQ(begun_.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(begun_.message().find("100"), std::string::npos) << begun_.message();
  EngineOptions options = test::ExactOptions();
  options.draft_tokens = 0;
  engine_ = test::TinyEngine(1024, options);
  ExpectSame(Run(NewRun(), Sampled(20).prompt, Sampled(20)), want);
  EXPECT_EQ(begun_.code(), StatusCode::kFailedPrecondition);
}

TEST_F(DraftRuns, OneThatFailsLeavesTheAnswerAlone) {
  const Answer want = RunOne(*test::TinyEngine(), Sampled(30));
  int tokens = 0;
  const auto run = NewRun([&tokens](int32_t) {
    if (++tokens == 4) throw std::runtime_error("broken");
  });
  ExpectSame(Run(run, Sampled(30).prompt, Sampled(30)), want);
  EXPECT_EQ(run->report().status.code(), StatusCode::kInternal);
  EXPECT_EQ(run->report().drafted, 4);
  EXPECT_EQ(run->report().stood, 4) << "what it had drafted was verified";
}

TEST_F(DraftRuns, BothEndWhenTheAnswerIsCancelled) {
  std::promise<void> ended;
  Request exact = Exact(2000);
  exact.sink = [&](const TokenEvent& event) {
    if (event.finish == FinishReason::kNone) return;
    EXPECT_EQ(event.finish, FinishReason::kCancelled);
    ended.set_value();
  };
  test::Gate gate;
  int drafted = 0;
  const auto run = NewRun([&](int32_t) {
    if (++drafted == 3) gate.Pass();
  });
  ASSERT_TRUE(run->Begin(*engine_, Exact(2000).prompt, &exact).ok());
  const auto id = engine_->Submit(std::move(exact));
  Release();
  ASSERT_TRUE(id.ok());
  gate.WaitReached();
  engine_->Cancel(*id);
  gate.Open();
  ended.get_future().wait();
  ExpectNothingLeft();
  EXPECT_LE(drafted, 4);
  EXPECT_EQ(engine_->stats().requests_finished, 2u);
}

TEST_F(DraftRuns, StopEndsADraftRunWhoseAnswerWasRefused) {
  Request exact = Exact(200);
  const auto run = NewRun();
  ASSERT_TRUE(run->Begin(*engine_, Exact(200).prompt, &exact).ok());
  run->Stop();
  run->Stop();
  Release();
  ExpectNothingLeft();
  EXPECT_LT(run->report().drafted, 200);
}

TEST_F(DraftRuns, TheEngineMayEndBeforeThem) {
  Request exact = Exact(2000);
  const auto run = NewRun();
  ASSERT_TRUE(run->Begin(*engine_, Exact(2000).prompt, &exact).ok());
  ASSERT_TRUE(engine_->Submit(std::move(exact)).ok());
  Release();
  test::WaitUntil([&] { return run->report().drafted > 0; });
  engine_.reset();
  EXPECT_GT(run->report().drafted, 0);
}

}  // namespace
}  // namespace kvasir
