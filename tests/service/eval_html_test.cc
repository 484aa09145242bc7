#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "service/eval/clean_text.h"
#include "service/eval/report_html.h"
#include "service/eval/svg.h"
#include "tests/service/eval_report_fixture.h"

namespace kvasir {
namespace {

std::string HtmlOf(const EvalReport& report) { return ReportToHtml(report, Summarise(report)); }

// "" if every element is closed in order and every attribute quoted, else what is wrong.
std::string FindMistake(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    if (end == std::string::npos) return "unclosed tag";
    const std::string tag = html.substr(at + 1, end - at - 1);
    if (tag.starts_with("!DOCTYPE")) continue;
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return "quotes in <" + tag + ">";
    const bool closing = tag[0] == '/';
    const size_t name_begin = closing ? 1 : 0;
    const std::string name =
        tag.substr(name_begin, tag.find_first_of(" /", name_begin) - name_begin);
    if (closing) {
      if (open.empty() || open.back() != name) return "unexpected </" + name + ">";
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(name);
    }
  }
  return open.empty() ? "" : "open <" + open.back() + ">";
}

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(ReportHtml, WellFormedAndSelfContained) {
  const std::string html = HtmlOf(MakeReport());
  EXPECT_EQ(FindMistake(html), "");
  for (const char* from_elsewhere : {"http:", "https:", "<script", "src=", "@import", "url("}) {
    EXPECT_EQ(html.find(from_elsewhere), std::string::npos) << from_elsewhere;
  }
  EXPECT_NE(html.find("prefers-color-scheme: dark"), std::string::npos);
  EXPECT_NE(html.find("name=\"viewport\""), std::string::npos);
}

TEST(ReportHtml, EveryTextIsEscaped) {
  const std::string html = HtmlOf(MakeReport());
  EXPECT_NE(html.find("tiny &lt;model&gt;.gguf"), std::string::npos);
  EXPECT_NE(html.find("Who &lt;b&gt;?"), std::string::npos);
  EXPECT_NE(html.find("text of &lt;item&gt; &amp; 0"), std::string::npos);
  EXPECT_NE(html.find("q&quot;uestions.jsonl"), std::string::npos);
  EvalReport hostile = MakeReport();
  const std::string evil = "</title></style></svg><script>alert(\"1\")</script>'\x01\xFF";
  hostile.model = hostile.isa = hostile.questions_file = hostile.system_text = evil;
  hostile.config = {{evil, evil}};
  for (EvalRow& row : hostile.rows) {
    if (row.ingestion.empty()) continue;
    row.ingestion = row.codec = row.note = evil;
    row.policy += evil;
    for (ItemResult& item : row.items) item.text = evil;
  }
  for (auto& question : hostile.questions) question = {evil, evil, evil, {evil}};
  const std::string page = HtmlOf(hostile);
  EXPECT_EQ(FindMistake(page), "");
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find('\x01'), std::string::npos);
  EXPECT_EQ(page, RepairUtf8(page));
}

TEST(ReportHtml, PlotsHaveNamesForThoseWhoCannotSeeThem) {
  const std::string html = HtmlOf(MakeReport());
  EXPECT_EQ(Count(html, "role=\"img\""), 8u);  // four plots, each wide and narrow
  EXPECT_EQ(Count(html, "<desc id="), 8u);
  EXPECT_EQ(Count(html, "<caption>"), 1u);
  EXPECT_EQ(Count(html, "scope=\"row\""), 5u);
  std::set<std::string> ids;
  for (size_t at = html.find(" id=\""); at != std::string::npos; at = html.find(" id=\"", at + 1)) {
    const size_t begin = at + 5;
    EXPECT_TRUE(ids.insert(html.substr(begin, html.find('"', begin) - begin)).second);
  }
  EXPECT_NE(html.find("anchor query(0.05), int8: 6.2% of the rows, KL 0.125 [0.125, 0.125] (on the "
                      "Pareto front)"),
            std::string::npos);
}

TEST(ReportHtml, WorstItemsComeFirst) {
  EvalReport report = MakeReport();
  const std::string html = HtmlOf(report);
  // query(0.05): item 0 has mean KL 0.125, item 1 0.0625.
  const size_t row = html.find("<summary>anchor query(0.05), int8: worst mean KL 0.125");
  ASSERT_NE(row, std::string::npos);
  EXPECT_LT(html.find("KL mean 0.125", row), html.find("KL mean 0.062", row));
  EXPECT_EQ(html.find("<summary>exact"), std::string::npos);
}

TEST(ReportHtml, ReportsWithNothingToDraw) {
  EXPECT_EQ(FindMistake(HtmlOf(EvalReport())), "");
  EvalReport references = MakeReport();
  references.rows.resize(1);
  EXPECT_EQ(FindMistake(HtmlOf(references)), "");
  EvalReport unmeasured = MakeReport();
  for (EvalRow& row : unmeasured.rows) row.items.clear();
  EXPECT_EQ(FindMistake(HtmlOf(unmeasured)), "");
  EvalReport zeros = MakeReport();
  for (EvalRow& row : zeros.rows) {
    for (ItemResult& item : row.items) {
      item.kl.assign(1, 0);
      item.top1_matches = 1;
      item.charged = item.ttft.total_ms = 0;
    }
  }
  const std::string html = HtmlOf(zeros);
  EXPECT_EQ(FindMistake(html), "");
  EXPECT_EQ(html.find("nan"), std::string::npos);
}

TEST(EscapeHtml, ByHand) {
  EXPECT_EQ(EscapeHtml("a<b>&\"'\n"), "a&lt;b&gt;&amp;&quot;&#39;\n");
  EXPECT_EQ(EscapeHtml("\x1B[0m"), "\xEF\xBF\xBD[0m");
  EXPECT_EQ(RepairUtf8("ok\xC3\xA9\xC3"), "ok\xC3\xA9\xEF\xBF\xBD");
  EXPECT_EQ(RepairUtf8("\xFF\xFE"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(Shortened("h\xC3\xA9llo", 2), "h\xC3\xA9...");
  EXPECT_EQ(Shortened("h\xC3\xA9", 2), "h\xC3\xA9");
}

TEST(SvgAxisTest, AtAndTicks) {
  const SvgAxis log{0.01, 1, 0, 100, true};
  EXPECT_DOUBLE_EQ(log.At(0.1), 50);
  EXPECT_DOUBLE_EQ(log.At(0), 0);
  EXPECT_DOUBLE_EQ(log.At(7), 100);
  auto near = [](const std::vector<double>& ticks, const std::vector<double>& expected) {
    ASSERT_EQ(ticks.size(), expected.size());
    for (size_t i = 0; i < ticks.size(); ++i) EXPECT_NEAR(ticks[i], expected[i], 1e-12);
  };
  near(log.Ticks(8), {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1});
  near(log.Ticks(5), {0.01, 0.03, 0.1, 0.3, 1});
  near(log.Ticks(3), {0.01, 0.1, 1});
  const SvgAxis linear{0, 1000, 50, 0};
  EXPECT_DOUBLE_EQ(linear.At(250), 37.5);
  near(linear.Ticks(5), {0, 200, 400, 600, 800, 1000});
  SvgAxis steps{1, 3, 0, 1};
  steps.whole = true;
  near(steps.Ticks(8), {1, 2, 3});
}

TEST(LabelPlacerTest, MovesAwayFromWhatIsThere) {
  LabelPlacer placer({0, 0, 400, 400});
  const LabelPlacer::Place first = placer.Find(200, 200, "label", false);
  EXPECT_TRUE(first.free);
  EXPECT_EQ(first.anchor, Anchor::kStart);
  const LabelPlacer::Place second = placer.Find(200, 200, "label", false);
  EXPECT_TRUE(second.free);
  EXPECT_NE(second.y, first.y);
  placer.Block({0, 0, 400, 400});
  EXPECT_FALSE(placer.Find(100, 100, "label", false).free);
  // At the right edge the label goes to the left.
  LabelPlacer edge({0, 0, 400, 400});
  EXPECT_LT(edge.Find(398, 200, "a long label", false).x, 398);
}

}  // namespace
}  // namespace kvasir
