// What the engine does when the device that computes fails: typed errors, nothing of a failed step
// handed out, and no new work; memory that does not suffice once is no such failure.
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/engine_harness.h"
#include "tests/engine/wrapped_backend.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::CaptureChunk;
using test::FailingBackend;
using test::Fresh;
using test::Ids;
using test::LoadChunk;
using test::PlanesOf;
using test::RandomTokens;
using test::Reused;
using test::RunAll;
using test::RunOne;
using Call = FailingBackend::Call;

class BackendFailure : public testing::Test {
 protected:
  BackendFailure() {
    loaded_ = test::LoadTiny(
        {"Failing",
         [this](int threads) {
           backend_ = std::make_shared<FailingBackend>(test::BestCpu().create(threads));
           return std::shared_ptr<Backend>(backend_);
         }},
        {.tied = false});
    EngineOptions options = test::ExactOptions(size_t{1} << 20);
    options.poison_blocks = false;  // loads are counted
    engine_ = test::MakeEngine(loaded_, options);
  }
  void Lose(Call call, int works = 0) {
    backend_->Fail(call, works, Internal("unspecified launch failure"));
  }
  void LackMemory(Call call, int works = 0) {
    backend_->Fail(call, works, ResourceExhausted("the card has no memory for 4096 bytes"));
  }
  static void ExpectFailed(const Status& status) {
    EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status.ToString();
    EXPECT_NE(status.message().find("unspecified launch failure"), std::string::npos)
        << status.message();
    EXPECT_NE(status.message().find("restart"), std::string::npos) << status.message();
  }

  std::shared_ptr<FailingBackend> backend_;
  test::Loaded loaded_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(BackendFailure, AStepThatFailsEndsItsRequestsAndAllThatCome) {
  EXPECT_TRUE(engine_->health().ok());
  Lose(Call::kNorm, 40);  // amid the answers
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 4; ++i) requests.push_back(Ask({Fresh(RandomTokens(20, i))}, 50));
  for (const Answer& answer : RunAll(*engine_, std::move(requests))) {
    EXPECT_EQ(answer.end.finish, FinishReason::kError);
    ExpectFailed(answer.end.status);
    EXPECT_LT(answer.tokens.size(), 50u);
  }
  ExpectFailed(engine_->health());
  ExpectFailed(engine_->Submit(Ask({Fresh({5})})).status());
  EXPECT_EQ(engine_->stats().running, 0);
  EXPECT_EQ(engine_->stats().blocks_free, engine_->stats().blocks_total);
}

TEST_F(BackendFailure, NoTokenIsDrawnFromLogitsOfAFailedStep) {
  const Answer whole = RunOne(*engine_, Ask({Fresh({30, 31, 32})}, 8));
  Lose(Call::kDownload, 3);
  const Answer cut = RunOne(*engine_, Ask({Fresh({30, 31, 32})}, 8));
  ExpectFailed(cut.end.status);
  EXPECT_EQ(cut.tokens, Ids(whole.tokens.begin(), whole.tokens.begin() + 3));
}

TEST_F(BackendFailure, NothingOfAFailedStepIsOffered) {
  Lose(Call::kSaveKv);
  Request request = Ask({Fresh(RandomTokens(40, 3))}, 0);
  request.capture = std::make_shared<KvCapture>();
  bool offered = false;
  request.on_prefix = [&](const auto&) { offered = true; };
  request.on_segments = [&](const auto&) { offered = true; };
  const Answer answer = RunOne(*engine_, std::move(request), false);
  ExpectFailed(answer.end.status);
  EXPECT_FALSE(offered);
}

TEST_F(BackendFailure, ALoadThatFailsIsNoHit) {
  const Ids chunk = RandomTokens(20, 5);
  const auto capture = CaptureChunk(*engine_, {}, chunk);
  const auto planes = PlanesOf(*capture);
  auto fill = std::move(engine_->BeginLoad(capture->tokens)).value();
  ASSERT_TRUE(fill->Load(planes[0]).ok());
  const auto blocks = fill->blocks();
  Lose(Call::kLoadKv);
  ExpectFailed(fill->Load(planes[1]));
  fill.reset();
  EXPECT_FALSE(blocks->complete());
  ExpectFailed(engine_->LoadBlocks(planes).status());
}

TEST_F(BackendFailure, ARequestThatWaitsForAFailedLoadEnds) {
  const Ids chunk = RandomTokens(20, 5);
  const auto capture = CaptureChunk(*engine_, {}, chunk);
  const auto planes = PlanesOf(*capture);
  auto fill = std::move(engine_->BeginLoad(capture->tokens)).value();
  Request request = Ask({Reused(chunk, fill->blocks()), Fresh({5, 6})}, 4);
  std::promise<TokenEvent> end;
  request.sink = [&end](const TokenEvent& event) {
    if (event.finish != FinishReason::kNone) end.set_value(event);
  };
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  Lose(Call::kLoadKv);
  ExpectFailed(fill->Load(planes[0]));
  fill.reset();
  const TokenEvent event = end.get_future().get();
  EXPECT_EQ(event.finish, FinishReason::kError);
  ExpectFailed(event.status);
}

TEST_F(BackendFailure, ReadingBlocksSaysSo) {
  const auto blocks = LoadChunk(*engine_, *CaptureChunk(*engine_, {}, RandomTokens(20, 5)));
  std::vector<float> k, v;
  EXPECT_TRUE(engine_->ReadBlocks(*blocks, 0, &k, &v).ok());
  Lose(Call::kReadKv);
  ExpectFailed(engine_->ReadBlocks(*blocks, 0, &k, &v));
}

TEST_F(BackendFailure, AStepWithoutMemoryFailsAloneAndTheNextOneWorks) {
  const Answer want = RunOne(*engine_, Ask({Fresh({30, 31, 32})}, 4));
  LackMemory(Call::kNorm);
  const Answer answer = RunOne(*engine_, Ask({Fresh({30, 31, 32})}, 4));
  EXPECT_EQ(answer.end.status.code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(engine_->health().ok());
  EXPECT_EQ(RunOne(*engine_, Ask({Fresh({30, 31, 32})}, 4)).tokens, want.tokens);
}

TEST_F(BackendFailure, ALoadWithoutMemoryFailsAloneAndWorksLater) {
  const Ids chunk = RandomTokens(20, 5);
  const auto capture = CaptureChunk(*engine_, {}, chunk);
  const auto planes = PlanesOf(*capture);
  const auto answer_over = [&](std::shared_ptr<const KvBlocks> blocks) {
    return RunOne(*engine_, Ask({Reused(chunk, std::move(blocks)), Fresh({5, 6})}, 4));
  };
  const Answer want = answer_over(LoadChunk(*engine_, *capture));
  const int32_t free = engine_->stats().blocks_free;
  LackMemory(Call::kLoadKv, 1);
  EXPECT_EQ(engine_->LoadBlocks(planes).status().code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(engine_->health().ok());
  EXPECT_EQ(engine_->stats().blocks_free, free);
  auto fill = std::move(engine_->BeginLoad(capture->tokens)).value();
  LackMemory(Call::kLoadKv, 1);
  ASSERT_TRUE(fill->Load(planes[0]).ok());
  EXPECT_EQ(fill->Load(planes[1]).code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(fill->blocks()->Has(2));
  for (size_t layer = 1; layer < planes.size(); ++layer) {
    ASSERT_TRUE(fill->Load(planes[layer]).ok());
  }
  EXPECT_EQ(answer_over(fill->blocks()).tokens, want.tokens);
}

TEST_F(BackendFailure, ARequestWhoseLoadHasNoMemoryComputesItsTokens) {
  const Ids chunk = RandomTokens(20, 5);
  const auto capture = CaptureChunk(*engine_, {}, chunk);
  const Answer want = RunOne(*engine_, Ask({Fresh(test::Join({chunk, {5, 6}}))}, 4));
  auto fill = std::move(engine_->BeginLoad(capture->tokens)).value();
  Request request = Ask({Reused(chunk, fill->blocks()), Fresh({5, 6})}, 4);
  LackMemory(Call::kLoadKv);
  EXPECT_EQ(fill->Load(PlanesOf(*capture)[0]).code(), StatusCode::kResourceExhausted);
  fill.reset();
  EXPECT_EQ(RunOne(*engine_, std::move(request)).tokens, want.tokens);
  EXPECT_EQ(engine_->stats().loads_lost, 1u);
  EXPECT_TRUE(engine_->health().ok());
}

TEST_F(BackendFailure, AReadWithoutMemoryFailsAlone) {
  const auto blocks = LoadChunk(*engine_, *CaptureChunk(*engine_, {}, RandomTokens(20, 5)));
  std::vector<float> k, v;
  LackMemory(Call::kReadKv);
  EXPECT_EQ(engine_->ReadBlocks(*blocks, 0, &k, &v).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(engine_->health().ok());
  EXPECT_TRUE(engine_->ReadBlocks(*blocks, 0, &k, &v).ok());
}

TEST_F(BackendFailure, NoMemoryForThePoolIsSaidAtStart) {
  backend_->LimitMemory();
  const auto engine = Engine::Create(loaded_.model, loaded_.backend, test::ExactOptions());
  EXPECT_EQ(engine.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(engine.status().message().find("memory"), std::string::npos);
}

}  // namespace
}  // namespace kvasir
