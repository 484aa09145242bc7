// What clients and the store see when the device that computes fails while serving.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/engine/wrapped_backend.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

namespace json = boost::json;
using test::FailingBackend;
using FailingCall = FailingBackend::Call;

constexpr char kQuestion[] =
    R"({"model":"default","max_tokens":40,"messages":[{"role":"user","content":"why?"}],)"
    R"("chunk_cache":{"mode":"off"}})";
const std::vector<std::string> kTexts = {"the cat sat on the mat", "a dog ran by the sea"};

class DeviceFailure : public PipelineTest {
 protected:
  std::shared_ptr<Backend> Wrap(std::shared_ptr<Backend> backend) override {
    failing_ = std::make_shared<FailingBackend>(std::move(backend));
    return failing_;
  }
  void Lose(FailingCall call, int works = 0) {
    failing_->Fail(call, works, Internal("CUDA: an illegal memory access was encountered"));
  }
  // The same process could not: a new one, with a device that works.
  void RestartProcess() {
    PipelineTest::Stop();
    parts_ = {};
    config_.data_folder = folder_ + "/data";
    auto backend = CreateCpuBackend({.threads = 1});
    ASSERT_TRUE(backend.ok());
    parts_.backend = std::move(*backend);
    parts_.model = *LoadGgufModel(test::WriteTinyModel(ModelOptions()), *parts_.backend);
    parts_.embedder = std::make_shared<LetterEmbedder>();
    Start();
  }
  void ExpectError(const HttpReply& reply) {
    EXPECT_EQ(reply.status, 503) << reply.body;
    EXPECT_NE(reply.body.find("illegal memory access"), std::string::npos) << reply.body;
    EXPECT_NE(reply.body.find("restart Kvasir"), std::string::npos) << reply.body;
  }

  std::shared_ptr<FailingBackend> failing_;
};

TEST_F(DeviceFailure, AnswersInFlightGet503AndTheServerIsNeitherReadyNorAlive) {
  EXPECT_EQ(Call(*service_, "GET", "/readyz").status, 200);
  EXPECT_EQ(Call(*service_, "GET", "/health").status, 200);
  Lose(FailingCall::kNorm, 60);
  HttpReply reply;
  RunGeneration(*service_, kQuestion, &reply);
  ExpectError(reply);
  for (const char* route : {"/readyz", "/health"}) {
    const HttpReply probe = Call(*service_, "GET", route);
    ExpectError(probe);
    EXPECT_EQ(json::parse(probe.body).at("status").as_string(), "failed");
  }
  const json::value stats = json::parse(Call(*service_, "GET", "/v1/stats").body);
  EXPECT_FALSE(stats.at("engine").at("healthy").as_bool());
  EXPECT_NE(Call(*service_, "GET", "/metrics").body.find("kvasir_engine_healthy 0"),
            std::string::npos);
}

TEST_F(DeviceFailure, NewRequestsAreRefusedWith503) {
  Lose(FailingCall::kNorm);
  RunGeneration(*service_, kQuestion);
  auto request = ParseChatRequest(kQuestion, {});
  ASSERT_TRUE(request.ok());
  const auto run = Generation::Start(*service_, std::move(*request), [] {});
  ASSERT_FALSE(run.ok());
  EXPECT_EQ(run.error().status, 503);
  EXPECT_EQ(run.error().code, "unavailable");
  EXPECT_NE(run.error().message.find("restart Kvasir"), std::string::npos);
}

TEST_F(DeviceFailure, AStreamEndsWithTheError) {
  Lose(FailingCall::kDownload, 5);
  std::string body = kQuestion;
  body.insert(1, R"("stream":true,)");
  const std::string bytes = RunGeneration(*service_, body);
  EXPECT_NE(bytes.find("\"error\""), std::string::npos) << bytes;
  EXPECT_NE(bytes.find("restart Kvasir"), std::string::npos);
  EXPECT_EQ(bytes.find("[DONE]"), std::string::npos);
}

// Chunk KV, prefixes and answers of before stay; nothing of a failed step joins them.
TEST_F(DeviceFailure, TheStoreIsUntouched) {
  std::string want;
  Ask(Question({kTexts[0]}, CacheMode::kFused, "concat"));
  const uint64_t inserted = runtime_->cache().counters().inserted;
  Lose(FailingCall::kSaveKv);
  const auto prompt = service_->rag.Prepare(Question(kTexts, CacheMode::kFused, "concat"));
  if (prompt.ok()) {
    const auto answer = AnswerBlocking(*runtime_, service_->rag, *prompt, {}, 8, nullptr, true);
    EXPECT_EQ(answer.status().code(), StatusCode::kUnavailable) << answer.status().ToString();
  } else {
    EXPECT_EQ(prompt.status().code(), StatusCode::kUnavailable) << prompt.status().ToString();
  }
  EXPECT_EQ(runtime_->cache().counters().inserted, inserted);
  EXPECT_LE(runtime_->answers()->stats().answers, 1U);  // the first, once it is kept

  RestartProcess();
  const CacheReport report = Ask(Question(kTexts, CacheMode::kFused, "concat"), &want);
  EXPECT_EQ(StatusesOf(report), (Statuses{"hit_disk", "computed"}));
  std::filesystem::remove_all(folder_ + "/other");
  Stop();
  config_.data_folder = folder_ + "/other";
  Start();
  std::string fresh;
  Ask(Question({kTexts[0]}, CacheMode::kFused, "concat"));
  Ask(Question(kTexts, CacheMode::kFused, "concat"), &fresh);
  EXPECT_EQ(want, fresh);
}

TEST_F(DeviceFailure, ALoadThatFailsIsServedAsAnErrorAndTheRecordStays) {
  Ask(Question(kTexts, CacheMode::kFused, "concat"));
  runtime_->DropUpperTiers(/*memory_too=*/true);
  Lose(FailingCall::kLoadKv, 1);
  const auto prompt = service_->rag.Prepare(Question(kTexts, CacheMode::kFused, "concat"));
  if (prompt.ok()) {
    const auto answer = AnswerBlocking(*runtime_, service_->rag, *prompt, {}, 8, nullptr, true);
    EXPECT_EQ(answer.status().code(), StatusCode::kUnavailable) << answer.status().ToString();
  }
  RestartProcess();
  const CacheReport report = Ask(Question(kTexts, CacheMode::kFused, "concat"));
  EXPECT_EQ(StatusesOf(report), Statuses(2, "hit_disk"));
}

TEST_F(DeviceFailure, ALoadWithoutMemoryIsComputedInstead) {
  Ask(Question(kTexts, CacheMode::kFused, "concat"));
  runtime_->DropUpperTiers(/*memory_too=*/true);
  failing_->Fail(FailingCall::kLoadKv, 1, ResourceExhausted("CUDA: out of memory"));
  Ask(Question(kTexts, CacheMode::kFused, "concat"));  // expects an answer
  EXPECT_EQ(Call(*service_, "GET", "/readyz").status, 200);
  runtime_->DropUpperTiers(/*memory_too=*/true);
  const CacheReport report = Ask(Question(kTexts, CacheMode::kFused, "concat"));
  EXPECT_EQ(StatusesOf(report), Statuses(2, "hit_disk"));
}

TEST_F(DeviceFailure, IngestionFailsWith503) {
  Lose(FailingCall::kNorm, 10);
  const HttpReply reply =
      Call(*service_, "POST", "/v1/documents", R"({"title":"a","text":"the cat sat"})");
  EXPECT_EQ(reply.status, 503) << reply.body;
}

}  // namespace
}  // namespace kvasir
