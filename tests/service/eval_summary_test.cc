#include <gtest/gtest.h>

#include "service/eval/report_findings.h"
#include "service/eval/summary.h"
#include "tests/service/eval_report_fixture.h"

namespace kvasir {
namespace {

double Value(const RowSummary& summary, EvalMetric metric) {
  return summary.Of(metric).value().value;
}

TEST(Summary, ByHand) {
  const std::vector<RowSummary> rows = Summarise(MakeReport());
  ASSERT_EQ(rows.size(), 5u);
  const RowSummary& concat = rows[2];
  EXPECT_EQ(concat.items, 2);
  EXPECT_DOUBLE_EQ(Value(concat, EvalMetric::kKlStep1), 0.375);
  // Mean of the items' means 0.375 and 0.25, not of the six steps.
  EXPECT_DOUBLE_EQ(Value(concat, EvalMetric::kKlMean), 0.3125);
  EXPECT_DOUBLE_EQ(Value(concat, EvalMetric::kKlP50), 0.25);
  // Six values, the largest 0.5: at 0.95 x 5 = 4.75, three quarters from 0.25 to 0.5.
  EXPECT_DOUBLE_EQ(Value(concat, EvalMetric::kKlP95), 0.4375);
  EXPECT_DOUBLE_EQ(Value(concat, EvalMetric::kKlMax), 0.5);
  // Two items' means, 0.25 and 0.375.
  EXPECT_DOUBLE_EQ(Value(concat, EvalMetric::kKlItemsP95), 0.25 + 0.95 * 0.125);
  EXPECT_DOUBLE_EQ(Value(concat, EvalMetric::kTop1), 0.5);
  EXPECT_DOUBLE_EQ(Value(concat, EvalMetric::kFirstDivergence), 5);  // 8 and 2
  EXPECT_DOUBLE_EQ(Value(concat, EvalMetric::kSameText), 0.5);
  EXPECT_DOUBLE_EQ(Value(concat, EvalMetric::kTtftTotal), 20);
  EXPECT_FALSE(concat.Of(EvalMetric::kF1Gold).has_value());
  EXPECT_DOUBLE_EQ(Value(rows[3], EvalMetric::kF1Gold), 0.75);  // of the item that has it
}

TEST(Summary, DifferencesToConcatAndSpeed) {
  const std::vector<RowSummary> rows = Summarise(MakeReport());
  const auto kl_mean = static_cast<size_t>(EvalMetric::kKlMean);
  EXPECT_FALSE(rows[0].vs_concat[kl_mean].has_value());  // no ingestion condition: no concat row
  EXPECT_FALSE(rows[2].vs_concat[kl_mean].has_value());  // concat itself
  // 0.125 - 0.375 and 0.0625 - 0.25.
  EXPECT_DOUBLE_EQ(rows[3].vs_concat[kl_mean].value().value, -0.21875);
  EXPECT_DOUBLE_EQ(rows[3].vs_concat[kl_mean]->low, -0.25);
  EXPECT_DOUBLE_EQ(rows[3].vs_concat[kl_mean]->high, -0.1875);
  EXPECT_FALSE(rows[3].vs_concat[static_cast<size_t>(EvalMetric::kKlP95)].has_value());
  EXPECT_DOUBLE_EQ(rows[3].speedup.value().value, 10);
  EXPECT_DOUBLE_EQ(rows[0].speedup.value().value, 1);
}

TEST(Summary, RowsAreJoinedByItem) {
  EvalReport report = MakeReport();
  report.rows[3].items.erase(report.rows[3].items.begin());  // item 1 is left
  const std::vector<RowSummary> rows = Summarise(report);
  EXPECT_EQ(rows[3].items, 1);
  EXPECT_DOUBLE_EQ(rows[3].vs_concat[static_cast<size_t>(EvalMetric::kKlMean)]->value, -0.1875);
  EXPECT_DOUBLE_EQ(rows[3].speedup->value, 10);  // 1200 / 120
}

TEST(Summary, EmptyRowsAndAbsentTexts) {
  EvalReport report = MakeReport();
  report.rows[3].items.clear();
  for (ItemResult& item : report.rows[4].items) {
    item.free_tokens = 0;
    item.kl.clear();
    item.top1_matches = 0;
  }
  const std::vector<RowSummary> rows = Summarise(report);
  for (const auto& metric : rows[3].metrics) EXPECT_FALSE(metric.has_value());
  EXPECT_FALSE(rows[3].speedup.has_value());
  EXPECT_FALSE(rows[4].Of(EvalMetric::kKlMean).has_value());
  EXPECT_FALSE(rows[4].Of(EvalMetric::kRougeL).has_value());
  EXPECT_FALSE(rows[4].Of(EvalMetric::kRefusalRate).has_value());
  EXPECT_TRUE(rows[4].Of(EvalMetric::kCharged).has_value());
  EXPECT_TRUE(Summarise(EvalReport()).empty());
}

TEST(Findings, ParetoFront) {
  const EvalReport report = MakeReport();
  const std::vector<RowSummary> rows = Summarise(report);
  // blend(0.15) charges more than query(0.05) and is further off.
  EXPECT_EQ(ParetoFront(report, rows, EvalMetric::kKlMean), (std::vector<size_t>{2, 3}));
  EXPECT_EQ(BestRow(report, rows), 3u);
}

TEST(Findings, WhatNoRequestCanHaveIsNoChoice) {
  EvalReport report = MakeReport();
  report.rows.push_back({kInPlaceIngestion,
                         "concat",
                         "int8",
                         "",
                         {MakeItem(0, {1e-4}, 0.01, 20), MakeItem(1, {1e-4}, 0.01, 20)}});
  EXPECT_EQ(BestRow(report, Summarise(report)), 3u);
}

TEST(Findings, OnlyCostlyRows) {
  EvalReport report = MakeReport();
  report.rows.erase(report.rows.begin() + 2, report.rows.begin() + 4);
  const std::vector<RowSummary> rows = Summarise(report);
  EXPECT_EQ(BestRow(report, rows), 2u);
  EXPECT_TRUE(SummarySentence(report, rows).starts_with("Nothing here computes less than a fifth"));
}

TEST(Findings, Sentence) {
  const EvalReport report = MakeReport();
  const std::string sentence = SummarySentence(report, Summarise(report));
  EXPECT_NE(sentence.find("closest to full prefill is anchor query(0.05), int8: KL 0.125 "),
            std::string::npos)
      << sentence;
  EXPECT_NE(sentence.find("first token after 100 ms instead of 1000 ms (10.0x faster)"),
            std::string::npos)
      << sentence;
  EXPECT_NE(sentence.find("chunks put together as stored 0.312"), std::string::npos) << sentence;
  EXPECT_NE(sentence.find("passages left out 1.500"), std::string::npos) << sentence;
  EvalReport references = MakeReport();
  references.rows.resize(2);
  EXPECT_EQ(SummarySentence(references, Summarise(references)),
            "No policy was measured beside the reference rows.");
}

}  // namespace
}  // namespace kvasir
