// Tokens that the backend draws by itself are the ones that the engine would draw on the host.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "engine/model/forward.h"
#include "engine/sampler.h"
#include "kernels/core/reference_backend.h"
#include "tests/engine/engine_harness.h"
#include "tests/engine/wrapped_backend.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::Fresh;
using test::Ids;
using test::RandomTokens;
using test::RunAll;

const test::Loaded& OnReference() {
  static const test::Loaded* loaded = new test::Loaded(test::LoadTiny(
      {"Reference", [](int) { return std::shared_ptr<Backend>(CreateReferenceBackend()); }},
      {.layers = 2, .tied = false}));
  return *loaded;
}

std::vector<Request> MixedRequests() {
  std::vector<Request> requests;
  const auto add = [&](const SamplingParams& sampling) -> Request& {
    const auto count = static_cast<int32_t>(requests.size());
    Request request = Ask({Fresh(RandomTokens(5 + 7 * count, uint64_t(count)))}, 12);
    request.sampling = sampling;
    request.ignore_eos = true;
    requests.push_back(std::move(request));
    return requests.back();
  };
  add({});
  add({.temperature = 1.0f, .seed = 3});
  add({.temperature = 0.9f, .logprobs = 2});
  add({.temperature = 1.3f, .top_k = 20, .top_p = 0.9f, .seed = 5});
  add({.temperature = 0.7f, .presence_penalty = 1.0f, .seed = 6});
  add({.temperature = 1.0f, .top_p = 0.8f, .min_p = 0.05f, .seed = 7});
  add({.logit_bias = {{40, 3.0f}}});
  add({.temperature = 2.0f, .seed = 8}).forced = {{50, 51, 52}};
  add({}).max_tokens = 0;
  return requests;
}

std::vector<Answer> AnswersWith(EngineOptions options, bool on_device) {
  options.draw_on_device = on_device;
  auto engine = test::MakeEngine(OnReference(), options);
  return RunAll(*engine, MixedRequests(), /*want_logits=*/false);
}

void ExpectSameAnswers(const std::vector<Answer>& a, const std::vector<Answer>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a[i].end.status.ok()) << i << ": " << a[i].end.status.ToString();
    EXPECT_EQ(a[i].end.finish, b[i].end.finish) << i;
    EXPECT_EQ(a[i].tokens, b[i].tokens) << i;
    ASSERT_EQ(a[i].events.size(), b[i].events.size()) << i;
    for (size_t e = 0; e < a[i].events.size(); ++e) {
      EXPECT_EQ(a[i].events[e].logprob.logprob, b[i].events[e].logprob.logprob);
    }
  }
}

TEST(DrawOnDevice, AnswersAreTheHosts) {
  const EngineOptions options = test::ExactOptions();
  ExpectSameAnswers(AnswersWith(options, true), AnswersWith(options, false));
}

TEST(DrawOnDevice, DraftsAreVerifiedAgainstDrawnTokens) {
  EngineOptions options = test::ExactOptions();
  const auto without = AnswersWith(options, false);
  options.draft_tokens = 3;
  ExpectSameAnswers(AnswersWith(options, true), without);
}

TEST(DrawOnDevice, OneWatchedRequestLeavesTheOthersOnTheDevice) {
  const auto plain = AnswersWith(test::ExactOptions(), true);
  auto engine = test::MakeEngine(OnReference(), test::ExactOptions());
  auto requests = MixedRequests();
  int calls = 0;
  requests[1].on_logits = [&](const std::vector<float>& logits) {
    ++calls;
    EXPECT_EQ(logits.size(), size_t{test::kTinyVocabulary});
  };
  ExpectSameAnswers(RunAll(*engine, std::move(requests), false), plain);
  EXPECT_EQ(calls, 12);
}

// Samples vocabularies of fewer tokens than the model's alone.
class SmallSampler final : public test::WrappedBackend {
 public:
  using WrappedBackend::WrappedBackend;
  bool CanSample(int64_t vocab) const override { return vocab < test::kTinyVocabulary; }
};

TEST(DrawOnDevice, AVocabularyThatIsTooLargeIsDrawnFromOnTheHost) {
  const test::Loaded plain = test::LoadTiny(test::BestCpu(), {.layers = 2, .tied = false});
  const test::Loaded loaded = {std::make_shared<SmallSampler>(plain.backend), plain.model};
  EngineOptions options = test::ExactOptions();
  options.draft_model = plain.model;  // guesses without the backend, too
  options.draft_tokens = 2;
  ASSERT_TRUE(options.draw_on_device);
  const auto without = RunAll(*test::MakeEngine(loaded, options), MixedRequests(), false);
  options.draw_on_device = false;
  ExpectSameAnswers(without, RunAll(*test::MakeEngine(plain, options), MixedRequests(), false));
}

TEST(DrawOnDevice, ARowWithoutATokenIsSaid) {
  auto backend = CreateReferenceBackend();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> logits = {1, nan, 2, 1, inf, 2, -inf, -inf, -inf, -inf, 3, 3};
  std::vector<RowDraw> draws = {{0, {}}, {1, {.temperature = 1}}, {2, {}}, {3, {}}};
  std::vector<int32_t> tokens(4, 7);
  backend->Sample(F32View(logits.data(), 4, 3), draws, tokens);
  EXPECT_EQ(tokens, (std::vector<int32_t>{-1, -1, -1, 1}));
}

// Forward brings exactly the rows to the host that nobody drew from.
TEST(DrawOnDevice, ForwardFetchesTheOtherRows) {
  const test::Loaded& loaded = OnReference();
  auto pool = std::move(*loaded.backend->CreateKvPool(loaded.model->config.Layout(DType::kF32), 2));
  StepBatch batch;
  batch.token_ids = RandomTokens(6, 9);
  for (int32_t i = 0; i < 6; ++i) {
    batch.positions.push_back(i);
    batch.local_positions.push_back(i);
    batch.slots.push_back(i);
    batch.logit_rows.push_back(i);
  }
  batch.sequences = {{0, 6, 0, 1}};
  batch.segments = {{0, 6, 0}};
  batch.block_table = {0};
  Workspace workspace(*loaded.backend);
  std::vector<float> all, some;
  ASSERT_TRUE(Forward(*loaded.model, *pool, batch, workspace, {}, &all).ok());
  const auto vocab = static_cast<size_t>(loaded.model->config.vocab);
  const auto row = [&](size_t index) { return std::span(all).subspan(index * vocab, vocab); };
  for (const std::vector<int32_t>& drawn :
       {Ids{0}, Ids{5}, Ids{1, 2}, Ids{0, 3, 5}, Ids{0, 1, 2, 3, 4, 5}}) {
    ForwardOptions options;
    std::vector<RowDraw> draws;
    std::vector<int32_t> tokens;
    for (const int32_t r : drawn) draws.push_back({r, {.temperature = 1, .position = uint64_t(r)}});
    options.draws = draws;
    options.tokens = &tokens;
    ASSERT_TRUE(Forward(*loaded.model, *pool, batch, workspace, options, &some).ok());
    ASSERT_EQ(some.size(), (6 - drawn.size()) * vocab);
    size_t at = 0;
    for (int32_t r = 0; r < 6; ++r) {
      const auto found = std::find(drawn.begin(), drawn.end(), r);
      if (found == drawn.end()) {
        EXPECT_TRUE(std::equal(row(size_t(r)).begin(), row(size_t(r)).end(),
                               some.begin() + std::ptrdiff_t(at)));
        at += vocab;
      } else {
        const auto index = size_t(found - drawn.begin());
        EXPECT_EQ(tokens[index], TokenDrawer().Draw(row(size_t(r)), draws[index].params));
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
