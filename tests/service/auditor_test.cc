// Audits of live requests on a tiny random model: what they store and show, and that they give way.
#include "service/auditor.h"

#include <boost/json.hpp>
#include <functional>
#include <thread>

#include "service/engine_call.h"
#include "service/eval/metrics.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

const std::vector<std::string> kTexts = {"the cat sat on the mat and looked at the sea",
                                         "a dog ran by the sea until the evening came"};

bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 3000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

class AuditorTest : public PipelineTest {
 protected:
  void StartWithShare(double share) {
    Stop();
    config_.audit_share = share;
    Start();
  }
  AuditStore::Samples Samples() {
    const Encoding& encoding = runtime_->encoding();
    return *runtime_->audits().Load(runtime_->AuditScopeOf(
        std::string(IngestionName(encoding.condition)), encoding.primer, runtime_->codec()));
  }
  // An answer that goes on until it is cancelled or the context ends.
  RequestId Block() {
    const auto prompt = service_->rag.Prepare(Question({}, CacheMode::kOff));
    EXPECT_TRUE(prompt.ok());
    const auto id = service_->rag.Submit(
        *prompt, {}, 3500, [](const TokenEvent&) {}, true);
    EXPECT_TRUE(id.ok());
    return *id;
  }
  AuditJob Job() {
    auto prompt = service_->rag.Prepare(Question(kTexts, CacheMode::kFused, "link(4)"));
    EXPECT_TRUE(prompt.ok());
    AuditJob job;
    job.stored = StoredPlan(prompt->plan);
    job.served = prompt->plan;
    job.scope = {"model", "fixed", "int8", LadderName()};
    job.policy = "link(4)";
    return job;
  }
};

TEST_F(AuditorTest, StoresASampleAndShowsTheDamage) {
  StartWithShare(1);
  Ask(Question(kTexts, CacheMode::kFused, "link(4)"));
  ASSERT_TRUE(Eventually([&] { return service_->rag.audits().total.samples == 1; }));
  const auto samples = Samples();
  ASSERT_EQ(samples->size(), 1u);
  EXPECT_TRUE(Fits(samples->front(), 3));

  const auto pass = [this](Request request) {
    return RunToEnd(runtime_->engine(), std::move(request));
  };
  const auto prompt = service_->rag.Prepare(Question(kTexts, CacheMode::kFused, "link(4)"));
  const auto exact = Certifier::FirstLogits(FlatPlan(prompt->plan), pass);
  const auto served = Certifier::FirstLogits(prompt->plan, pass);
  const AuditStats stats = service_->rag.audits();
  EXPECT_EQ(stats.policies.at("link(4)").sum_kl, KlDivergence(*exact, *served));
  const auto body = boost::json::parse(Call(*service_, "GET", "/v1/stats").body);
  EXPECT_GE(body.at("audits").at("samples").to_number<int>(), 1);
  EXPECT_TRUE(body.at("audits").at("mean_kl").is_number());
  EXPECT_TRUE(body.at("audits").at("policies").as_object().contains("link(4)"));
  const std::string metrics = Call(*service_, "GET", "/metrics").body;
  EXPECT_EQ(metrics.find("kvasir_audits_total 0\n"), std::string::npos);
  EXPECT_NE(metrics.find("kvasir_audit_kl_nats_sum "), std::string::npos);
}

TEST_F(AuditorTest, OnlyFusedRequestsAreAuditedAndNoneAtShareZero) {
  StartWithShare(1);
  Ask(Question(kTexts, CacheMode::kExact));
  Ask(Question({}, CacheMode::kAuto));
  StartWithShare(0);
  Ask(Question(kTexts, CacheMode::kFused, "link(4)"));
  EXPECT_EQ(service_->rag.audits().total.samples + service_->rag.audits().waiting, 0);
  EXPECT_TRUE(Samples()->empty());
}

TEST_F(AuditorTest, WaitsWhileTheEngineRunsAndHoldsAtMostEightJobs) {
  const AuditJob job = Job();
  Auditor auditor(runtime_->engine(), runtime_->audits(), {}, 1);
  const RequestId blocker = Block();
  for (int i = 0; i < 20; ++i) auditor.Offer(job);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const AuditStats stats = auditor.stats();
  const bool busy = runtime_->engine().stats().running == 1;
  runtime_->engine().Cancel(blocker);
  if (busy) {
    EXPECT_EQ(stats.total.samples, 0);
    EXPECT_LE(stats.waiting, static_cast<int64_t>(kMaxAuditJobs));
    EXPECT_GE(stats.dropped, 20 - static_cast<int64_t>(kMaxAuditJobs) - 1);
  }
  EXPECT_TRUE(Eventually([&] {
    const AuditStats now = auditor.stats();
    return now.waiting == 0 && now.total.samples + now.dropped == 20 && now.total.samples > 0;
  }));
}

TEST_F(AuditorTest, StopsAtOnceAlthoughItWaits) {
  const AuditJob job = Job();
  const RequestId blocker = Block();
  const auto begin = std::chrono::steady_clock::now();
  {
    Auditor auditor(runtime_->engine(), runtime_->audits(), {}, 1);
    auditor.Offer(job);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  runtime_->engine().Cancel(blocker);
}

TEST_F(AuditorTest, APassIsCalledOffWhenItMayNotGoOn) {
  Request request;
  request.prompt = FlatPlan(Job().stored);
  request.max_tokens = 2000;
  request.ignore_eos = true;
  const auto call = RunWhile(runtime_->engine(), std::move(request), [] { return false; });
  EXPECT_EQ(call.status().code(), StatusCode::kCancelled);
  EXPECT_TRUE(Eventually([&] { return runtime_->engine().stats().running == 0; }));
}

TEST_F(AuditorTest, AFailedPassIsCountedAndNothingElse) {
  AuditJob job = Job();
  job.served = PromptPlan();  // nothing to compute: the engine refuses it
  Auditor auditor(runtime_->engine(), runtime_->audits(), {}, 1);
  auditor.Offer(job);
  EXPECT_TRUE(Eventually([&] { return auditor.stats().failed == 1; }));
  EXPECT_EQ(auditor.stats().total.samples, 0);
}

}  // namespace
}  // namespace kvasir
