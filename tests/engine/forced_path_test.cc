// Teacher forcing, probes and attention weights of a request, on the tiny model.
#include <gtest/gtest.h>

#include <numeric>

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

TEST(ForcedPath, LogitsAreThoseOfThePromptThatHoldsThePath) {
  const auto engine = test::TinyEngine();
  const Ids prompt = RandomTokens(21, 1), path = RandomTokens(5, 2), other = RandomTokens(3, 3);
  Request request = Ask({Fresh(prompt)}, 6);
  request.forced = {path, other};
  const Answer answer = RunOne(*engine, std::move(request));
  ASSERT_EQ(answer.end.finish, FinishReason::kLength);
  // The prompt's, 4 of the path, 2 of the other, 5 behind the free answer's tokens.
  ASSERT_EQ(answer.logits.size(), 1u + 4u + 2u + 5u);
  for (size_t fed = 0; fed < path.size(); ++fed) {
    Ids whole = prompt;
    whole.insert(whole.end(), path.begin(), path.begin() + long(fed));
    const Answer flat = RunOne(*engine, Ask({Fresh(whole)}, 1));
    EXPECT_TRUE(SameBits(flat.logits[0], answer.logits[fed])) << fed;
  }
  Ids whole = prompt;
  whole.push_back(other[0]);
  EXPECT_TRUE(SameBits(RunOne(*engine, Ask({Fresh(whole)}, 1)).logits[0], answer.logits[5]));
}

TEST(ForcedPath, TheFreeAnswerIsThatOfTheSameRequestWithoutPaths) {
  const auto engine = test::TinyEngine();
  const Ids prompt = RandomTokens(30, 4);
  const Answer plain = RunOne(*engine, Ask({Fresh(prompt)}, 8));
  Request request = Ask({Fresh(prompt)}, 8);
  request.forced = {RandomTokens(8, 5), RandomTokens(1, 6)};
  EXPECT_EQ(RunOne(*engine, std::move(request)).tokens, plain.tokens);
}

TEST(ForcedPath, EndsBehindThePathsIfAsked) {
  const auto engine = test::TinyEngine();
  Request request = Ask({Fresh(RandomTokens(9, 7))}, 4);
  request.forced = {RandomTokens(4, 8)};
  request.only_forced = true;
  const Answer answer = RunOne(*engine, std::move(request));
  EXPECT_EQ(answer.end.finish, FinishReason::kLength);
  EXPECT_TRUE(answer.tokens.empty());
  EXPECT_EQ(answer.logits.size(), 4u);
}

TEST(ForcedPath, RefusesPathsThatDoNotFit) {
  const auto engine = test::TinyEngine();
  Request request = Ask({Fresh(RandomTokens(9, 7))}, 4);
  request.forced = {RandomTokens(5, 8)};
  EXPECT_EQ(engine->Submit(request).status().code(), StatusCode::kInvalidArgument);
  request.forced = {{}};
  EXPECT_EQ(engine->Submit(request).status().code(), StatusCode::kInvalidArgument);
  request.forced = {{-1}};
  EXPECT_EQ(engine->Submit(request).status().code(), StatusCode::kInvalidArgument);
}

TEST(Probe, ComputesTheSameFirstLayersBesideOthers) {
  const auto engine = test::TinyEngine();
  const Ids prompt = RandomTokens(40, 9);
  const auto whole = test::CaptureChunk(*engine, {}, prompt);
  Request probe = Ask({Fresh(prompt)}, 0);
  probe.layers = 2;
  probe.capture = std::make_shared<KvCapture>();
  const auto capture = probe.capture;
  const std::vector<Answer> answers = RunAll(*engine, {Ask({Fresh(prompt)}, 5), probe});
  EXPECT_EQ(answers[1].end.finish, FinishReason::kLength);
  EXPECT_EQ(answers[0].tokens, RunOne(*engine, Ask({Fresh(prompt)}, 5)).tokens);
  ASSERT_EQ(capture->layers, 2);
  ASSERT_EQ(capture->tokens, 40);
  EXPECT_EQ(capture->v, std::vector<float>(whole->v.begin(),
                                           whole->v.begin() + long(2 * whole->LayerStride())));
}

TEST(Probe, HasNoLogits) {
  const auto engine = test::TinyEngine();
  Request probe = Ask({Fresh(RandomTokens(9, 7))}, 1);
  probe.layers = 1;
  EXPECT_EQ(engine->Submit(probe).status().code(), StatusCode::kInvalidArgument);
}

std::shared_ptr<AttentionMass> MassOf(Engine& engine, const Ids& prompt, int32_t rows) {
  Request request = Ask({Fresh(prompt)}, 0);
  request.attention = std::make_shared<AttentionMass>();
  request.attention->rows = rows;
  const auto mass = request.attention;
  RunOne(engine, std::move(request));
  return mass;
}

TEST(Attention, EveryAskedRowGivesOneUnitToWhatItSees) {
  const auto engine = test::TinyEngine();
  const auto mass = MassOf(*engine, RandomTokens(37, 10), 3);
  const auto& config = engine->model().config;
  ASSERT_EQ(mass->layer_end, config.layers);
  ASSERT_EQ(mass->positions, 37);
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    for (int32_t head = 0; head < config.heads; ++head) {
      const float* at = mass->Of(layer) + head * 37;
      EXPECT_NEAR(std::accumulate(at, at + 37, 0.0), 3.0, 1e-4);
      EXPECT_LT(at[36], 1.0f);  // the last key is seen by the last row alone
    }
  }
}

TEST(Attention, DoesNotDependOnSlicesOfThePrompt) {
  EngineOptions narrow = test::ExactOptions();
  narrow.step_rows = 7;
  narrow.max_sequences = 2;
  const Ids prompt = RandomTokens(50, 11);
  const auto wide = test::TinyEngine();
  const auto sliced = test::TinyEngine(256, narrow);
  EXPECT_EQ(MassOf(*wide, prompt, 20)->mass, MassOf(*sliced, prompt, 20)->mass);
}

TEST(Attention, RowsOfTheAnswerAreAskedTooIfWanted) {
  const auto engine = test::TinyEngine();
  Request request = Ask({Fresh(RandomTokens(20, 12))}, 4);
  request.attention = std::make_shared<AttentionMass>();
  request.attention->rows = 2;
  request.attention->answer = true;
  const auto mass = request.attention;
  ASSERT_EQ(RunOne(*engine, std::move(request)).tokens.size(), 4u);
  ASSERT_EQ(mass->positions, 24);
  // Two rows of the prompt, three of the answer: its last token is not fed back.
  const float* at = mass->Of(0);
  EXPECT_NEAR(std::accumulate(at, at + 24, 0.0), 5.0, 1e-4);
  EXPECT_GT(at[20], 0.0f);
  EXPECT_EQ(at[23], 0.0f);
}

}  // namespace
}  // namespace kvasir
