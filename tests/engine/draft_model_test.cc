// A smaller model as drafter: which it may be, what it guesses, and that it changes no answer.
#include "engine/draft_model.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/vocabulary_check.h"
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

// Packed for the backend of test::Tiny(). Not const: some tests spoil it.
std::shared_ptr<Model> LoadDraft(const test::TinyModelOptions& options) {
  auto model = LoadGgufModel(test::WriteTinyModel(options), *test::Tiny().backend);
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  return std::const_pointer_cast<Model>(*model);
}
std::shared_ptr<Model> Same() { return LoadDraft({.tied = false}); }
std::shared_ptr<Model> Smaller() { return LoadDraft({.layers = 1, .tied = false, .seed = 7}); }

std::unique_ptr<DraftModel> Make(std::shared_ptr<Model> model, size_t pool_bytes = 1 << 20,
                                 int32_t window = 256) {
  auto draft =
      DraftModel::Create(std::move(model), test::Tiny().backend, {pool_bytes, DType::kF32, window});
  EXPECT_TRUE(draft.ok()) << draft.status().ToString();
  return std::move(draft).value();
}

PromptPlan Prompt(const std::vector<Ids>& segments) {
  PromptPlan plan;
  for (const Ids& ids : segments) plan.segments.emplace_back().token_ids = ids;
  return plan;
}

Ids Draft(DraftModel& draft, RequestId id, int32_t tokens) {
  std::vector<DraftModel::Wish> wishes = {{id, tokens, {}}};
  const Status status = draft.Draft(wishes);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return wishes[0].guess;
}

// ---- vocabularies

TEST(DraftVocabulary, MustBeTheSame) {
  const Model& model = *test::Tiny().model;
  EXPECT_TRUE(CheckSameVocabulary(model, *Smaller()).ok());
  const auto expect = [&](const Model& draft, const std::vector<std::string>& parts) {
    const Status status = CheckSameVocabulary(model, draft);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    for (const std::string& part : parts) {
      EXPECT_NE(status.message().find(part), std::string::npos) << part << "\n" << status.message();
    }
    EXPECT_NE(status.message().find(model.path), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(draft.path), std::string::npos) << status.message();
  };
  auto other = Smaller();
  other->vocabulary.tokens[5] = "\x01it's";
  other->vocabulary.tokens[9] = "?";
  expect(*other, {"2 tokens have another text, the first of them 5, '\\x01it's' instead of '"});
  other = Smaller();
  other->vocabulary.bos = 9;
  other->vocabulary.eos = -1;
  expect(*other, {"the begin is token 9 instead of 1", "the end is token -1 instead of 2"});
  other = Smaller();
  other->config.vocab = 299;
  other->vocabulary.tokens.pop_back();
  expect(*other, {"299 tokens instead of 300"});
  EngineOptions options = test::ExactOptions();
  options.draft_model = other;
  const auto engine = Engine::Create(test::Tiny().model, test::Tiny().backend, options);
  ASSERT_FALSE(engine.ok());
  EXPECT_NE(engine.status().message().find("another vocabulary"), std::string::npos);
}

// ---- guesses

TEST(DraftModel, GuessesAreTheModelsOwnGreedyAnswer) {
  const auto engine = test::TinyEngine();
  const auto draft = Make(Same());
  const std::vector<Ids> segments = {RandomTokens(40, 1), RandomTokens(23, 2)};
  const Ids want = RunOne(*engine, Ask({Fresh(segments[0]), Fresh(segments[1])}, 20)).tokens;
  draft->Begin(1, Prompt(segments), {want.data(), 1});
  const Ids guess = Draft(*draft, 1, 8);
  EXPECT_EQ(guess, Ids(want.begin() + 1, want.begin() + 9));
  for (const int32_t token : guess) draft->Append(1, token);
  EXPECT_EQ(Draft(*draft, 1, 8), Ids(want.begin() + 9, want.begin() + 17));
}

// Whatever was accepted of its guesses: the next ones are those of one who reads all anew.
TEST(DraftModel, KeepsTheKvOfRightGuesses) {
  const auto draft = Make(Same()), anew = Make(Same());
  const PromptPlan prompt = Prompt({RandomTokens(37, 4)});
  std::mt19937 random(4);
  Ids answer = {5};
  draft->Begin(1, prompt, answer);
  for (int round = 0; round < 60; ++round) {
    const auto tokens = static_cast<int32_t>(random() % 6 + 1);
    const Ids guess = Draft(*draft, 1, tokens);
    anew->Begin(1, prompt, answer);
    EXPECT_EQ(guess, Draft(*anew, 1, tokens)) << round;
    Ids next(guess.begin(), guess.begin() + static_cast<std::ptrdiff_t>(random() % guess.size()));
    if (random() % 3 == 0) next = guess;
    if (random() % 4 != 0) next.push_back(static_cast<int32_t>(random() % 200 + 3));
    for (const int32_t token : next) {
      draft->Append(1, token);
      answer.push_back(token);
    }
  }
  draft->End(1);
  draft->End(2);  // never begun
  EXPECT_EQ(draft->free_blocks(), draft->total_blocks());
}

TEST(DraftModel, AnswersOfAStepGuessTogether) {
  const auto draft = Make(Same()), alone = Make(Same());
  std::vector<DraftModel::Wish> wishes;
  for (RequestId id = 1; id <= 4; ++id) {
    const PromptPlan prompt = Prompt({RandomTokens(10 * int32_t(id), id)});
    draft->Begin(id, prompt, Ids{7});
    alone->Begin(id, prompt, Ids{7});
    wishes.push_back({id, int32_t(id) + 1, {}});
  }
  wishes.push_back({99, 3, {}});  // never begun
  ASSERT_TRUE(draft->Draft(wishes).ok());
  for (RequestId id = 1; id <= 4; ++id) {
    EXPECT_EQ(wishes[id - 1].guess, Draft(*alone, id, int32_t(id) + 1)) << id;
  }
  EXPECT_TRUE(wishes.back().guess.empty());
}

TEST(DraftModel, ReadsTheEndOfALongPromptInSlices) {
  const int32_t window = 2 * DraftModel::kCatchUpRows;
  const auto draft = Make(Same(), 4 << 20, window), whole = Make(Same(), 4 << 20, window);
  const Ids ids = RandomTokens(window + 100, 5);
  const PromptPlan prompt =
      Prompt({{ids.begin(), ids.begin() + 90}, {ids.begin() + 90, ids.end()}});
  EXPECT_EQ(draft->RowsToBegin(prompt, 1), window + 1);
  draft->Begin(1, prompt, Ids{7});
  EXPECT_TRUE(Draft(*draft, 1, 3).empty());
  EXPECT_TRUE(Draft(*draft, 1, 3).empty());
  whole->Begin(1, Prompt({{ids.begin() + 100, ids.end()}}), Ids{7});
  for (int i = 0; i < 2; ++i) Draft(*whole, 1, 3);
  const Ids guess = Draft(*draft, 1, 3);
  EXPECT_EQ(guess.size(), 3u);
  EXPECT_EQ(guess, Draft(*whole, 1, 3));
  EXPECT_GT(draft->Seconds(1), 0);
}

TEST(DraftModel, ManyPromptsAreReadOneAfterTheOther) {
  const auto draft = Make(Same(), 4 << 20), alone = Make(Same(), 4 << 20);
  std::vector<DraftModel::Wish> wishes;
  for (RequestId id = 1; id <= 3; ++id) {
    draft->Begin(id, Prompt({RandomTokens(200, id)}), Ids{7});
    alone->Begin(id, Prompt({RandomTokens(200, id)}), Ids{7});
    wishes.push_back({id, 2, {}});
  }
  for (size_t ready = 1; ready <= 3; ++ready) {
    for (DraftModel::Wish& wish : wishes) wish.guess.clear();
    ASSERT_TRUE(draft->Draft(wishes).ok());
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(wishes[i].catches_up, i >= ready) << i;
      EXPECT_EQ(wishes[i].guess, i < ready ? Draft(*alone, i + 1, 2) : Ids()) << i;
    }
  }
}

TEST(DraftModel, WithoutRoomThereIsNoGuess) {
  const auto draft = Make(Same(), 3 * test::kTinyBlockBytes);
  draft->Begin(1, Prompt({RandomTokens(30, 6)}), Ids{7});
  draft->Begin(2, Prompt({RandomTokens(30, 7)}), Ids{7});
  EXPECT_EQ(Draft(*draft, 1, 4).size(), 4u);
  EXPECT_TRUE(Draft(*draft, 2, 4).empty());
  draft->End(1);
  EXPECT_EQ(Draft(*draft, 2, 4).size(), 4u);
  EXPECT_FALSE(DraftModel::Create(Same(), test::Tiny().backend, {10, DType::kF32, 8}).ok());
}

// ---- in the engine

class DraftedEngine : public testing::Test {
 protected:
  static std::unique_ptr<Engine> MakeEngine(std::shared_ptr<const Model> draft,
                                            int32_t draft_tokens = 4, size_t pool_bytes = 1 << 20) {
    EngineOptions options = test::ExactOptions();
    options.draft_model = std::move(draft);
    options.draft_tokens = draft_tokens;
    options.draft_pool_bytes = pool_bytes;
    return test::TinyEngine(256, options);
  }
  static DraftCounts OfModel(const Engine& engine) {
    return engine.stats().drafts[static_cast<size_t>(DraftSource::kModel)];
  }
  static Request Question(uint64_t seed, int32_t tokens = 50) {
    return Ask({Fresh(RandomTokens(30, seed)), Fresh(RandomTokens(9, seed + 50))}, tokens);
  }
  static void ExpectSame(const Answer& a, const Answer& b) {
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.end.finish, b.end.finish);
    ASSERT_EQ(a.logits.size(), b.logits.size());
    for (size_t i = 0; i < a.logits.size(); ++i) {
      ASSERT_TRUE(SameBits(a.logits[i], b.logits[i])) << "step " << i;
    }
  }
  const std::unique_ptr<Engine> plain_ = MakeEngine(nullptr, 0);
};

TEST_F(DraftedEngine, TheSameModelIsNearlyAlwaysRight) {
  const auto drafted = MakeEngine(Same());
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    ExpectSame(RunOne(*drafted, Question(seed)), RunOne(*plain_, Question(seed)));
  }
  const DraftCounts counts = OfModel(*drafted);
  EXPECT_GT(counts.drafted, 50);
  EXPECT_GE(counts.accepted, counts.drafted * 95 / 100);
  EXPECT_LT(drafted->stats().steps, plain_->stats().steps / 2);
}

TEST_F(DraftedEngine, AnotherModelChangesNoAnswer) {
  const auto drafted = MakeEngine(Smaller());
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    Request request = Question(seed);
    if (seed % 2 == 0) {
      request.sampling.temperature = 0.8f;
      request.sampling.repetition_penalty = 1.1f;
      request.sampling.seed = seed;
    }
    ExpectSame(RunOne(*drafted, request), RunOne(*plain_, request));
  }
  const DraftCounts counts = OfModel(*drafted);
  EXPECT_GT(counts.drafted, counts.accepted);
}

TEST_F(DraftedEngine, AnswersInAMixAreThoseAlone) {
  const auto drafted = MakeEngine(Same());
  std::vector<Request> requests;
  for (uint64_t seed = 1; seed <= 6; ++seed) requests.push_back(Question(seed, 30));
  for (size_t i = 0; i < requests.size(); i += 2) {
    requests[i].sampling.temperature = 0.9f;
    requests[i].sampling.seed = i;
  }
  const auto mixed = RunAll(*drafted, requests);
  for (size_t i = 0; i < requests.size(); ++i) ExpectSame(mixed[i], RunOne(*plain_, requests[i]));
  EXPECT_GT(OfModel(*drafted).accepted, 0);
}

TEST_F(DraftedEngine, DraftsWhatPaysAndTheSameAnswers) {
  const auto drafted = MakeEngine(Smaller(), kDraftWhatPays);
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    ExpectSame(RunOne(*drafted, Question(seed, 20)), RunOne(*plain_, Question(seed, 20)));
  }
  EXPECT_GT(OfModel(*drafted).drafted, 0) << "at least what every 16th answer tries";
}

TEST_F(DraftedEngine, AFailingModelIsDroppedAndTheAnswerGoesOn) {
  const auto draft = Same();
  const auto drafted = MakeEngine(draft);
  ExpectSame(RunOne(*drafted, Question(1)), RunOne(*plain_, Question(1)));
  const int64_t before = OfModel(*drafted).drafted;
  EXPECT_GT(before, 0);
  draft->config.vocab = 3;  // every step of it fails from now on; the engine is idle
  for (uint64_t seed = 2; seed <= 3; ++seed) {
    const Answer got = RunOne(*drafted, Question(seed));
    EXPECT_TRUE(got.end.status.ok());
    ExpectSame(got, RunOne(*plain_, Question(seed)));
  }
  EXPECT_EQ(OfModel(*drafted).drafted, before);
  EXPECT_EQ(drafted->stats().drafters_dropped, 1u);
}

TEST_F(DraftedEngine, WithoutRoomItStaysSilent) {
  const auto drafted = MakeEngine(Same(), 4, test::kTinyBlockBytes);
  ExpectSame(RunOne(*drafted, Question(1)), RunOne(*plain_, Question(1)));
  EXPECT_EQ(OfModel(*drafted).drafted, 0);
}

}  // namespace
}  // namespace kvasir
