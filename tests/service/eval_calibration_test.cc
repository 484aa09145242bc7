// The calibration of certify as an evaluation makes and shows it.
#include <boost/json.hpp>

#include "service/eval/eval.h"
#include "service/eval/report_calibration.h"
#include "service/eval/report_html.h"
#include "service/eval/report_json.h"
#include "service/eval/report_table.h"
#include "tests/service/eval_report_fixture.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

EvalCalibration MakeCalibration() {
  return {"fixed",
          "int8",
          0.05,
          0.1,
          40,
          0.02,
          {{0.01, 0, 1.0 / 41, 0, 0.75, 1.25}, {0.02, 0.05, 3.0 / 41, 0.025, 0.25, 0.5}}};
}

TEST(ReportCalibration, SurvivesJson) {
  const EvalCalibration made = MakeCalibration();
  const auto read = CalibrationFromJson(CalibrationToJson(made), "here");
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(read->ingestion, "fixed");
  EXPECT_EQ(read->samples, 40);
  EXPECT_EQ(read->lambda, 0.02);
  ASSERT_EQ(read->curve.size(), 2u);
  EXPECT_EQ(read->curve[1].over, 0.025);
  EXPECT_EQ(read->curve[1].charged, 0.5);

  boost::json::object broken = CalibrationToJson(made);
  broken["curve"].as_array()[1].as_object().erase("risk");
  const auto status = CalibrationFromJson(broken, "here").status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("curve[1]"), std::string::npos) << status.message();
}

TEST(ReportCalibration, StandsInEveryReport) {
  EvalReport report = MakeReport();
  const std::vector<RowSummary> summaries = Summarise(report);
  EXPECT_EQ(FormatReport(report, summaries).find("certify"), std::string::npos);
  EXPECT_EQ(HtmlCalibrations(report), "");
  report.calibrations = {MakeCalibration()};
  const std::string table = FormatReport(report, summaries);
  EXPECT_NE(table.find("certify(0.05"), std::string::npos) << table;
  EXPECT_NE(table.find("* 0.02"), std::string::npos) << table;
  EXPECT_NE(ReportToHtml(report, summaries).find("Calibration of certify"), std::string::npos);
  const auto again = ReportFromJson(ReportToJson(report, summaries));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->calibrations.size(), 1u);

  report.calibrations[0].lambda.reset();
  EXPECT_NE(FormatReport(report, summaries).find("40 samples allow no stop"), std::string::npos);
}

class EvalCalibrationTest : public PipelineTest {
 protected:
  static QuestionFile Questions() {
    std::string lines;
    for (const char* name : {"cat", "dog", "bird", "sheep"}) {
      lines += std::string(R"({"question":"where is the )") + name + R"(?","documents":["the )" +
               name + R"( is in the field","the sun is up"]})" + "\n";
    }
    return *ParseQuestions(lines);
  }
  static EvalOptions Options(const std::string& policy) {
    EvalOptions options;
    options.policies = {*ParsePolicy(policy)};
    options.ingestions = {"fixed"};
    options.codecs = {KvCodec::kInt8};
    options.runner.steps = 2;
    options.runner.free_answers = false;
    return options;
  }
  static const EvalRow& RowOf(const EvalReport& report, const std::string& policy) {
    for (const EvalRow& row : report.rows) {
      if (row.policy == policy) return row;
    }
    ADD_FAILURE() << "no row " << policy;
    return report.rows.front();
  }
};

TEST_F(EvalCalibrationTest, KeepsOneSampleAQuestionForLiveRequestsToo) {
  EvalOptions options = Options("concat");
  options.calibrate = true;
  for (int repeat = 0; repeat < 2; ++repeat) {
    const auto report = RunEvaluation(*runtime_, Questions(), options, nullptr, nullptr);
    ASSERT_TRUE(report.ok()) << report.status().ToString();
    ASSERT_EQ(report->calibrations.size(), 1u);
    EXPECT_EQ(report->calibrations[0].samples, 4);
    EXPECT_FALSE(report->calibrations[0].curve.empty());
  }
  const Encoding& encoding = runtime_->encoding();
  const auto live = runtime_->audits().Load(runtime_->AuditScopeOf(
      std::string(IngestionName(encoding.condition)), encoding.primer, runtime_->codec()));
  EXPECT_EQ((*live)->size(), 4u);
}

// Epsilon 100 is never exceeded, alpha 0.25 needs three samples: the first rung is enough.
TEST_F(EvalCalibrationTest, CertifyIsExactWithoutSamplesAndStopsWithThem) {
  const EvalOptions options = Options("certify(100,0.25)");
  auto report = RunEvaluation(*runtime_, Questions(), options, nullptr, nullptr);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  for (const ItemResult& item : RowOf(*report, "certify(100,0.25)").items) {
    EXPECT_EQ(item.charged, 1);
    EXPECT_LT(item.kl.front(), 1e-6);  // exact but for the order of sums
  }
  EXPECT_EQ(report->calibrations.at(0).lambda, std::nullopt);
  EvalOptions calibrate = Options("concat");
  calibrate.calibrate = true;
  ASSERT_TRUE(RunEvaluation(*runtime_, Questions(), calibrate, nullptr, nullptr).ok());
  report = RunEvaluation(*runtime_, Questions(), options, nullptr, nullptr);
  ASSERT_TRUE(report.ok());
  ASSERT_TRUE(report->calibrations.at(0).lambda);
  EXPECT_EQ(report->calibrations[0].curve.back().exact, 0);
  for (const ItemResult& item : RowOf(*report, "certify(100,0.25)").items) {
    EXPECT_GT(item.selected, 0);
  }
}

}  // namespace
}  // namespace kvasir
