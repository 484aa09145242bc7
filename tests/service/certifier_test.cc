// certify on a tiny random model: where the calibrated rule stops, what it charges, what it
// reports.
#include "service/certifier.h"

#include <boost/json.hpp>

#include "cache/selector.h"
#include "service/eval/metrics.h"
#include "service/http/generation_reply.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

const std::vector<std::string> kTexts = {"the cat sat on the mat and looked at the sea",
                                         "a dog ran by the sea until the evening came",
                                         "birds sing at dawn over the long grey roofs of the town"};

class CertifierTest : public PipelineTest {
 protected:
  AuditScope Scope() const {
    const Encoding& encoding = runtime_->encoding();
    return runtime_->AuditScopeOf(std::string(IngestionName(encoding.condition)), encoding.primer,
                                  runtime_->codec());
  }
  // Enough samples for alpha 0.1, whose calibrated lambda is `movement`.
  void Calibrate(double movement) {
    for (int i = 0; i < 9; ++i) {
      ASSERT_TRUE(
          runtime_->audits().Add(Scope(), {std::vector<double>(3, movement), {0, 0, 0}, {}}).ok());
    }
  }
  static RagRequest Certified() { return Question(kTexts, CacheMode::kFused, "certify(0.05,0.1)"); }
  static double Computed(const CacheReport& report) {
    return static_cast<double>(report.account.recomputed + report.account.computed);
  }
  Certifier::Pass Pass() {
    return [this](Request request) { return RunToEnd(runtime_->engine(), std::move(request)); };
  }
};

TEST_F(CertifierTest, GoesToExactAtOnceWithoutSamples) {
  std::string exact, certified;
  Ask(Question(kTexts, CacheMode::kExact), &exact);
  Ask(Certified());
  const CacheReport report = Ask(Certified(), &certified);
  EXPECT_EQ(certified, exact);
  ASSERT_TRUE(report.certificate);
  EXPECT_EQ(report.certificate->rung, "exact");
  EXPECT_EQ(report.certificate->samples, 0);
  EXPECT_EQ(report.certificate->lambda, std::nullopt);
  EXPECT_EQ(report.certificate->predicted_kl, 0.0);
  EXPECT_EQ(report.account.computed, report.account.requested);
  EXPECT_EQ(report.account.looked, 0);
  EXPECT_EQ(StatusesOf(report), Statuses(3, "hit_pool"));
}

TEST_F(CertifierTest, StopsAtTheFirstRungThatTheRuleAllows) {
  Calibrate(1e6);
  const CacheReport concat = Ask(Question(kTexts, CacheMode::kFused, "concat"));
  const CacheReport stored = Ask(Question(kTexts, CacheMode::kFused, "concat"));
  const CacheReport report = Ask(Certified());
  ASSERT_TRUE(report.certificate);
  EXPECT_EQ(report.certificate->rung, "query(0.05)");
  EXPECT_EQ(report.certificate->movement.size(), 1u);
  EXPECT_EQ(report.certificate->lambda, 1e6);
  EXPECT_EQ(report.certificate->samples, 9);
  EXPECT_EQ(report.certificate->predicted_kl, 0.0);  // all samples' KL
  EXPECT_GT(report.account.recomputed, 0);
  // The look, and the question once more than it answers.
  EXPECT_DOUBLE_EQ(report.account.looked, 2 * Computed(stored));
}

// The answer goes on from the rung's own KV: to the bit what the rung alone would answer.
TEST_F(CertifierTest, AnswersFromTheKvOfTheRungWhereItStopped) {
  Calibrate(1e6);
  Ask(Question(kTexts, CacheMode::kFused, "concat"));
  const std::string rung = FusionPolicy::Query(kCertifyRungs[0]).Name();
  std::string certified, queried;
  const CacheReport report = Ask(Certified(), &certified);
  const CacheReport wanted = Ask(Question(kTexts, CacheMode::kFused, rung), &queried);
  EXPECT_EQ(certified, queried);
  EXPECT_EQ(report.account.recomputed, wanted.account.recomputed);
  EXPECT_EQ(report.account.fused, wanted.account.fused);
  const auto prompt = service_->rag.Prepare(Certified());
  const auto same = service_->rag.Prepare(Question(kTexts, CacheMode::kFused, rung));
  ASSERT_TRUE(prompt.ok() && same.ok());
  EXPECT_EQ(prompt->plan.rows(), StoredPlan(same->plan).rows());
  EXPECT_EQ(*Certifier::FirstLogits(prompt->plan, Pass()),
            *Certifier::FirstLogits(same->plan, Pass()));
}

TEST_F(CertifierTest, ClimbsToExactAndChargesEveryRung) {
  Calibrate(0);  // a random model's rungs never stand quite still
  std::string exact, certified;
  Ask(Question(kTexts, CacheMode::kExact), &exact);
  Ask(Certified());
  const CacheReport report = Ask(Certified(), &certified);
  EXPECT_EQ(certified, exact);
  ASSERT_TRUE(report.certificate);
  EXPECT_EQ(report.certificate->rung, "exact");
  EXPECT_EQ(report.certificate->lambda, 0.0);
  ASSERT_EQ(report.certificate->movement.size(), 3u);
  EXPECT_EQ(report.account.computed, report.account.requested);
  double looked = Computed(Ask(Question(kTexts, CacheMode::kFused, "concat")));
  for (const char* rung : {"query(0.05)", "query(0.15)", "query(0.3)"}) {
    looked += Computed(Ask(Question(kTexts, CacheMode::kFused, rung)));
  }
  EXPECT_DOUBLE_EQ(report.account.looked, looked);
}

TEST_F(CertifierTest, MeasuresEveryRungAgainstExact) {
  Ask(Question(kTexts, CacheMode::kFused, "concat"));
  const auto concat = service_->rag.Prepare(Question(kTexts, CacheMode::kFused, "concat"));
  ASSERT_TRUE(concat.ok());
  const auto exact = Certifier::FirstLogits(FlatPlan(concat->plan), Pass());
  ASSERT_TRUE(exact.ok());
  Certifier certifier(runtime_->engine(), {});
  const auto sample = certifier.Measure(concat->plan, *exact);
  ASSERT_TRUE(sample.ok()) << sample.status().ToString();
  ASSERT_TRUE(Fits(*sample, 3));

  std::vector<float> below = *Certifier::FirstLogits(concat->plan, Pass());
  const auto requested = static_cast<double>(concat->report.account.requested);
  const double question = Computed(concat->report) / requested;
  double spent = question;
  for (size_t rung = 0; rung < 3; ++rung) {
    const auto prompt = service_->rag.Prepare(
        Question(kTexts, CacheMode::kFused, FusionPolicy::Query(kCertifyRungs[rung]).Name()));
    ASSERT_TRUE(prompt.ok());
    const std::vector<float> logits = *Certifier::FirstLogits(prompt->plan, Pass());
    EXPECT_EQ(sample->kl[rung], KlDivergence(*exact, logits));
    EXPECT_EQ(sample->movement[rung], KlDivergence(logits, below));
    const double rows = Computed(prompt->report) / requested;
    spent += rows;
    EXPECT_NEAR(sample->charged[rung], spent + question, 1e-12);
    below = logits;
  }
  EXPECT_NEAR(sample->charged[3], spent + 1, 1e-12);
}

TEST_F(CertifierTest, StoredPlansComputeNoFusedRow) {
  Ask(Question(kTexts, CacheMode::kFused, "concat"));
  const auto linked = service_->rag.Prepare(Question(kTexts, CacheMode::kFused, "link(4)"));
  ASSERT_TRUE(linked.ok());
  EXPECT_EQ(AccountOf(linked->plan).recomputed, 12);
  const PromptPlan stored = StoredPlan(linked->plan);
  EXPECT_EQ(AccountOf(stored).recomputed, 0);
  EXPECT_EQ(FusedRows(stored), FusedRows(linked->plan));
}

TEST_F(CertifierTest, RepliesNameTheRung) {
  Calibrate(1e6);
  const CacheReport report = Ask(Certified());
  ReplyContext context;
  context.model = "tiny";
  context.tokenizer = &runtime_->tokenizer();
  context.cache = report;
  const auto reply = boost::json::parse(WholeReply(context, {}, "", {}));
  const auto& certificate = reply.at("chunk_cache").at("certificate").as_object();
  EXPECT_EQ(certificate.at("rung").as_string(), "query(0.05)");
  EXPECT_EQ(certificate.at("predicted_kl").to_number<double>(), 0);
  EXPECT_EQ(certificate.at("calibration_samples").to_number<int>(), 9);
  context.cache.certificate.reset();
  const auto plain = boost::json::parse(WholeReply(context, {}, "", {}));
  EXPECT_FALSE(plain.at("chunk_cache").as_object().contains("certificate"));
}

}  // namespace
}  // namespace kvasir
