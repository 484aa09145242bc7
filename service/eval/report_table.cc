#include "service/eval/report_table.h"

#include <algorithm>
#include <set>

#include "kernels/core/status.h"
#include "service/eval/report_calibration.h"
#include "service/eval/report_findings.h"
#include "service/eval/report_numbers.h"
#include "service/text_table.h"

namespace kvasir {
namespace {

constexpr int kWidth = 110;
constexpr int kSeparator = 3;  // " | "

int Characters(const std::string& text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

// "0.018 ±0.004": half the interval's width.
std::string WithInterval(const std::optional<Estimate>& estimate) {
  if (!estimate) return "";
  return ShortNumber(estimate->value) + " ±" + ShortNumber((estimate->high - estimate->low) / 2);
}

bool ShowsCodec(const EvalReport& report) {
  std::set<std::string> codecs;
  for (const EvalRow& row : report.rows) {
    if (!row.codec.empty()) codecs.insert(row.codec);
  }
  return codecs.size() > 1;
}

int Longest(const EvalReport& report, const std::string& title, std::string EvalRow::*text) {
  int longest = Characters(title);
  for (const EvalRow& row : report.rows) longest = std::max(longest, Characters(row.*text));
  return longest;
}

// A name that is too long breaks behind its commas.
std::string Breakable(const std::string& name, int width) {
  if (Characters(name) <= width) return name;
  std::string spaced;
  for (const char c : name) {
    spaced += c;
    if (c == ',') spaced += ' ';
  }
  return spaced;
}

// Names take what the numbers leave of the width, the ingestion no more than it needs.
std::vector<TableColumn> Columns(const EvalReport& report, bool codec) {
  const std::vector<TableColumn> numbers = {
      {"KL step 1", 12, true}, {"KL mean", 12, true}, {"p95", 5, true},   {"top-1", 6, true},
      {"charged", 7, true},    {"TTFT ms", 7, true},  {"faster", 6, true}};
  int left = kWidth - kSeparator;
  for (const TableColumn& column : numbers) left -= column.width + kSeparator;
  std::vector<TableColumn> columns;
  const int codec_width = 5;
  if (codec) left -= codec_width + kSeparator;
  const int ingestion = std::min(Longest(report, "ingestion", &EvalRow::ingestion), 14);
  const int policy = std::min(Longest(report, "policy", &EvalRow::policy), left - ingestion);
  columns.push_back({"ingestion", ingestion});
  columns.push_back({"policy", policy});
  if (codec) columns.push_back({"codec", codec_width});
  columns.insert(columns.end(), numbers.begin(), numbers.end());
  return columns;
}

std::vector<std::string> Cells(const EvalRow& row, const RowSummary& summary,
                               const std::vector<TableColumn>& columns, bool codec) {
  std::vector<std::string> cells = {Breakable(row.ingestion, columns[0].width),
                                    Breakable(row.policy, columns[1].width)};
  if (codec) cells.push_back(row.codec);
  const std::vector<std::string> numbers = {
      WithInterval(summary.Of(EvalMetric::kKlStep1)),
      WithInterval(summary.Of(EvalMetric::kKlMean)),
      ValueText(summary.Of(EvalMetric::kKlP95), ShortNumber),
      ValueText(summary.Of(EvalMetric::kTop1), PercentText),
      ValueText(summary.Of(EvalMetric::kCharged), PercentText),
      ValueText(summary.Of(EvalMetric::kTtftTotal), MillisecondsText),
      ValueText(summary.speedup, TimesText)};
  cells.insert(cells.end(), numbers.begin(), numbers.end());
  return cells;
}

// Which of the questions a row lacks, and what the runner noted of it.
std::string Notes(const EvalReport& report, const std::vector<RowSummary>& summaries) {
  std::string notes;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    std::string note = report.rows[i].note;
    const auto all = static_cast<int64_t>(report.questions.size());
    if (summaries[i].items < all) {
      const std::string some =
          std::to_string(summaries[i].items) + " of " + std::to_string(all) + " items";
      note = note.empty() ? some : note + "; " + some;
    }
    if (!note.empty()) notes += RowName(report.rows[i]) + ": " + note + "\n";
  }
  return notes;
}

std::string Legend(const EvalReport& report) {
  return std::to_string(report.questions.size()) + " items, seed " + std::to_string(report.seed) +
         ". KL from full prefill in nats over at most " + std::to_string(report.steps) +
         " teacher-forced tokens of its answer; ± half the 95 % interval (bootstrap over items); "
         "p95 over all tokens. top-1: same most probable token. charged: rows computed at request "
         "time, the question included. faster: exact's time to first token / the row's.\n";
}

std::string Wrapped(const std::string& text) {
  std::string out;
  for (const std::string& line : WrapText(text, kWidth)) out += line + "\n";
  while (out.ends_with("\n\n")) out.pop_back();
  return out;
}

}  // namespace

std::string FormatReport(const EvalReport& report, const std::vector<RowSummary>& summaries) {
  KVASIR_CHECK(summaries.size() == report.rows.size());
  const bool codec = ShowsCodec(report);
  const std::vector<TableColumn> columns = Columns(report, codec);
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    if (i > 0 && report.rows[i].ingestion != report.rows[i - 1].ingestion) rows.emplace_back();
    rows.push_back(Cells(report.rows[i], summaries[i], columns, codec));
  }
  return FormatTable(columns, rows, TableRules::kAsked) + "\n" +
         Wrapped(SummarySentence(report, summaries)) + "\n" + Wrapped(Legend(report)) +
         Wrapped(Notes(report, summaries)) + FormatCalibrations(report);
}

}  // namespace kvasir
