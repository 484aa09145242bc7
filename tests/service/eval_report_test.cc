#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <limits>

#include "service/eval/report_json.h"
#include "service/eval/report_numbers.h"
#include "service/eval/report_table.h"
#include "tests/service/eval_report_fixture.h"

namespace kvasir {
namespace {

namespace json = boost::json;

std::string JsonOf(const EvalReport& report) { return ReportToJson(report, Summarise(report)); }

TEST(ReportJson, NamesAndPlaces) {
  const json::value value = json::parse(JsonOf(MakeReport()));
  EXPECT_EQ(value.at("model"), "tiny <model>.gguf");
  EXPECT_EQ(value.at("items"), 2);
  EXPECT_EQ(value.at("seed"), 9);
  const json::value& row = value.at("rows").at(3);
  EXPECT_EQ(row.at("ingestion"), "anchor");
  EXPECT_EQ(row.at("policy"), "query(0.05)");
  for (const char* name : {"kl_step1", "kl_mean", "kl_p50", "kl_p95", "kl_max", "kl_items_p95",
                           "top1", "first_divergence", "rouge_l", "f1_full", "f1_gold",
                           "refusal_rate", "charged", "question_share"}) {
    EXPECT_TRUE(row.at(name).is_number()) << name;
    EXPECT_EQ(row.at("ci95").at(name).as_array().size(), 2u) << name;
  }
  EXPECT_TRUE(row.at("gold_loglik").is_null());
  EXPECT_FALSE(row.at("ci95").as_object().contains("gold_loglik"));
  EXPECT_EQ(row.at("kl_step1").to_number<double>(), 0.125);
  for (const char* part : {"total", "lookup", "load", "repair", "question"}) {
    EXPECT_TRUE(row.at("ttft_ms").at(part).is_number()) << part;
    EXPECT_EQ(row.at("ci95").at("ttft_ms").at(part).as_array().size(), 2u) << part;
  }
  EXPECT_EQ(row.at("vs_concat").at("kl_mean").at("value").to_number<double>(), -0.21875);
  EXPECT_EQ(row.at("vs_concat").at("kl_mean").at("ci95").as_array().size(), 2u);
  EXPECT_TRUE(value.at("rows").at(2).at("vs_concat").is_null());
  EXPECT_EQ(row.at("speedup").to_number<double>(), 10);
  EXPECT_EQ(row.at("per_item").as_array().size(), 2u);
}

TEST(ReportJson, ReadsBackWhatItWrote) {
  const std::string text = JsonOf(MakeReport());
  const auto report = ReportFromJson(text);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->questions[0].answers, (std::vector<std::string>{"gold", "other"}));
  EXPECT_EQ(report->config, MakeReport().config);
  EXPECT_EQ(report->rows[1].note, "the passages left out");
  EXPECT_EQ(report->rows[3].items[0].f1_gold, 0.75);
  EXPECT_EQ(report->rows[3].items[1].f1_gold, std::nullopt);
  EXPECT_EQ(JsonOf(*report), text);
}

TEST(ReportJson, NumbersWithoutAFiniteValueAreNull) {
  EvalReport report = MakeReport();
  report.rows[2].items[0].kl[0] = std::numeric_limits<double>::infinity();
  const json::value value = json::parse(JsonOf(report));
  EXPECT_TRUE(value.at("rows").at(2).at("kl_step1").is_null());
  EXPECT_TRUE(value.at("rows").at(2).at("per_item").at(0).at("kl").at(0).is_null());
  const auto back = ReportFromJson(JsonOf(report));
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_TRUE(std::isnan(back->rows[2].items[0].kl[0]));
}

TEST(ReportJson, MistakesAreNamed) {
  auto without = [](const char* from, const char* to) {
    std::string text = JsonOf(MakeReport());
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos);
    return ReportFromJson(text.replace(at, std::string(from).size(), to)).status().message();
  };
  EXPECT_EQ(without("\"model\":", "\"mod\":"), "model is missing");
  EXPECT_EQ(without("\"seed\": 9", "\"seed\": -9"),
            "seed must be a whole number of 0 or more in 64 bits");
  EXPECT_EQ(without("\"policy\": \"no context\"", "\"policy\": 1"),
            "rows[1].policy must be a string");
  EXPECT_EQ(without("\"item\": 1", "\"item\": -1"),
            "rows[0].per_item[1].item must not be negative");
  EXPECT_EQ(without("\"top1_matches\": 1", "\"top1_matches\": 99"),
            "rows[0].per_item[0].top1_matches must be in [0, length of kl]");
  EXPECT_EQ(ReportFromJson("[]").status().message(), "a report of kvasir eval is a JSON object");
  EXPECT_FALSE(ReportFromJson("{").ok());
  EXPECT_FALSE(ReportFromJson("").ok());
}

TEST(ReportJson, FilesAreNamed) {
  const std::string path = testing::TempDir() + "/report-" + std::to_string(getpid()) + ".json";
  EXPECT_EQ(ReadReport(path).status().code(), StatusCode::kNotFound);
  std::ofstream(path) << "{}";
  EXPECT_EQ(ReadReport(path).status().message(), path + ": model is missing");
  std::ofstream(path) << JsonOf(MakeReport());
  EXPECT_TRUE(ReadReport(path).ok());
  unlink(path.c_str());
}

size_t Characters(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

TEST(ReportTable, FitsAndSays) {
  EvalReport report = MakeReport();
  const std::string table = FormatReport(report, Summarise(report));
  for (const std::string& line : Lines(table)) EXPECT_LE(Characters(line), 110u) << line;
  EXPECT_NE(table.find("| query(0.05) |"), std::string::npos) << table;
  EXPECT_NE(table.find(" 10.0x"), std::string::npos) << table;
  EXPECT_NE(table.find("6.2%"), std::string::npos) << table;
  EXPECT_NE(table.find("2 items, seed 9."), std::string::npos) << table;
  EXPECT_NE(table.find("no context: the passages left out"), std::string::npos) << table;
  EXPECT_EQ(table.find("codec"), std::string::npos) << table;
}

TEST(ReportTable, LongNamesAndSeveralCodecs) {
  EvalReport report = MakeReport();
  report.rows[2].codec = "fp16";
  report.rows[3].ingestion = "a very long name of an ingestion condition";
  report.rows[3].policy = "link(16)+query(0.05,rows=4,layers=0.66-1,heads=max,smooth=7)";
  report.rows[4].items.pop_back();
  const std::string table = FormatReport(report, Summarise(report));
  for (const std::string& line : Lines(table)) EXPECT_LE(Characters(line), 110u) << line;
  EXPECT_NE(table.find("| codec |"), std::string::npos) << table;
  EXPECT_NE(table.find("anchor blend(0.15), int8: 1 of 2 items"), std::string::npos) << table;
}

TEST(ReportTable, NothingMeasured) {
  const std::string table = FormatReport(EvalReport(), {});
  EXPECT_NE(table.find("No policy was measured"), std::string::npos);
}

TEST(ReportNumbers, Short) {
  EXPECT_EQ(ShortNumber(0), "0.000");
  EXPECT_EQ(ShortNumber(0.0124), "0.012");
  EXPECT_EQ(ShortNumber(2e-6), "2e-06");
  EXPECT_EQ(ShortNumber(-0.25), "-0.250");
  EXPECT_EQ(ShortNumber(12.346), "12.35");
  EXPECT_EQ(ShortNumber(999.96), "1000");
  EXPECT_EQ(ShortNumber(std::nan("")), "inf");
  EXPECT_EQ(PercentText(0.0625), "6.2%");
  EXPECT_EQ(TimesText(8.125), "8.1x");
  EXPECT_EQ(MillisecondsText(99.94), "99.9");
  EXPECT_EQ(MillisecondsText(99.96), "100");
}

}  // namespace
}  // namespace kvasir
