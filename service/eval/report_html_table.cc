#include <algorithm>
#include <array>

#include "service/eval/clean_text.h"
#include "service/eval/report_findings.h"
#include "service/eval/report_html_parts.h"
#include "service/eval/report_numbers.h"
#include "service/text_table.h"

namespace kvasir {
namespace {

std::string TokensText(double tokens) { return Fixed(tokens, 1); }
std::string NatsText(double nats) { return Fixed(nats, 2); }

struct HtmlColumn {
  EvalMetric metric;
  const char* title;
  const char* unit;
  std::string (*text)(double);
  bool interval;
};

constexpr std::array<HtmlColumn, 17> kColumns = {{
    {EvalMetric::kKlStep1, "KL step 1", "nats", ShortNumber, true},
    {EvalMetric::kKlMean, "KL mean", "nats", ShortNumber, true},
    {EvalMetric::kKlP95, "KL p95", "nats", ShortNumber, true},
    {EvalMetric::kTop1, "top-1", "same token", PercentText, true},
    {EvalMetric::kCharged, "charged", "of rows", PercentText, false},
    {EvalMetric::kTtftTotal, "TTFT", "ms", MillisecondsText, true},
    {EvalMetric::kKlP50, "KL p50", "nats", ShortNumber, false},
    {EvalMetric::kKlMax, "KL max", "nats", ShortNumber, false},
    {EvalMetric::kKlItemsP95, "KL p95", "of items' means", ShortNumber, true},
    {EvalMetric::kFirstDivergence, "diverges", "after tokens", TokensText, true},
    {EvalMetric::kSameText, "same text", "of items", PercentText, true},
    {EvalMetric::kRougeL, "ROUGE-L", "vs full", ShortNumber, true},
    {EvalMetric::kF1Full, "F1", "vs full", ShortNumber, true},
    {EvalMetric::kF1Gold, "F1", "vs gold", ShortNumber, true},
    {EvalMetric::kGoldLoglik, "gold loglik", "nats", NatsText, true},
    {EvalMetric::kRefusalRate, "refusals", "of items", PercentText, false},
    {EvalMetric::kQuestionShare, "question", "of rows", PercentText, false},
}};

std::string Head(const std::string& title, const std::string& unit) {
  return "<th scope=\"col\">" + title + "<small>" + unit + "</small></th>";
}

std::string Cell(const std::optional<Estimate>& estimate, std::string (*text)(double),
                 bool interval) {
  if (!estimate) return "<td></td>";
  const std::string below = interval ? "<small>" + IntervalText(*estimate, text) + "</small>" : "";
  return "<td>" + text(estimate->value) + below + "</td>";
}

// Escaped; may break behind commas and plus signs.
std::string Breakable(const std::string& name) {
  std::string escaped;
  for (const char c : EscapeHtml(name)) {
    escaped += c;
    if (c == ',' || c == '+') escaped += "<wbr/>";
  }
  return escaped;
}

std::string SignedNumber(double value) { return (value > 0 ? "+" : "") + ShortNumber(value); }

class Table {
 public:
  explicit Table(const PlotData& data) : data_(data), best_(BestRow(data.report, data.summaries)) {
    auto any = [&data](auto has) {
      return std::any_of(data.summaries.begin(), data.summaries.end(), has);
    };
    for (const HtmlColumn& column : kColumns) {
      if (any([&column](const RowSummary& row) { return row.Of(column.metric).has_value(); }))
        columns_.push_back(column);
    }
    speedup_ = any([](const RowSummary& row) { return row.speedup.has_value(); });
    versus_ = any([](const RowSummary& row) { return VsConcat(row).has_value(); });
  }

  std::string Print() const {
    std::string table = "<table><caption>" + Caption() + "</caption>\n<thead><tr>" +
                        Head("policy", "ingestion, KV codec");
    for (const HtmlColumn& column : columns_) {
      table += Head(column.title, column.unit);
      if (column.metric == EvalMetric::kTtftTotal && speedup_)
        table += Head("faster", "than exact");
      if (column.metric == EvalMetric::kKlMean && versus_) table += Head("\u2212 concat", "nats");
    }
    table += "</tr></thead>\n";
    for (size_t i = 0; i < data_.report.rows.size(); ++i) {
      const bool begins = i == 0 || GroupOf(i) != GroupOf(i - 1);
      if (begins)
        table += i == 0 ? "<tbody class=\"group\">\n" : "</tbody><tbody class=\"group\">\n";
      table += Row(i);
    }
    if (!data_.report.rows.empty()) table += "</tbody>";
    return table + "</table>\n";
  }

 private:
  static const std::optional<Estimate>& VsConcat(const RowSummary& row) {
    return row.vs_concat[static_cast<size_t>(EvalMetric::kKlMean)];
  }

  const std::string& GroupOf(size_t row) const { return data_.report.rows[row].ingestion; }

  std::string Caption() const {
    return std::to_string(data_.report.questions.size()) +
           " questions; in brackets 95\u00A0% intervals of a paired bootstrap over questions";
  }

  std::string RowHead(size_t i) const {
    const EvalRow& row = data_.report.rows[i];
    std::string below = row.ingestion;
    if (!row.codec.empty()) below += (below.empty() ? "" : ", ") + row.codec;
    const auto all = static_cast<int64_t>(data_.report.questions.size());
    const std::string pill = best_ == i ? " <span class=\"pill\">best</span>" : "";
    std::string head = "<th scope=\"row\">" + Breakable(row.policy) + pill + "<small>" +
                       EscapeHtml(below) + "</small>";
    if (!row.note.empty()) head += "<small>" + EscapeHtml(row.note) + "</small>";
    if (data_.summaries[i].items < all) {
      head += "<small>" + std::to_string(data_.summaries[i].items) + " of " + std::to_string(all) +
              " questions</small>";
    }
    return head + "</th>";
  }

  std::string Row(size_t i) const {
    const RowSummary& summary = data_.summaries[i];
    std::string row = best_ == i ? "<tr class=\"best\">" : "<tr>";
    row += RowHead(i);
    for (const HtmlColumn& column : columns_) {
      row += Cell(summary.Of(column.metric), column.text, column.interval);
      if (column.metric == EvalMetric::kTtftTotal && speedup_)
        row += Cell(summary.speedup, TimesText, true);
      if (column.metric == EvalMetric::kKlMean && versus_)
        row += Cell(VsConcat(summary), SignedNumber, true);
    }
    return row + "</tr>\n";
  }

  const PlotData& data_;
  std::optional<size_t> best_;
  std::vector<HtmlColumn> columns_;
  bool speedup_ = false, versus_ = false;
};

}  // namespace

std::string HtmlTable(const PlotData& data) {
  return "<div class=\"scroll\" role=\"region\" aria-label=\"All rows\" tabindex=\"0\">" +
         Table(data).Print() + "</div>\n";
}

}  // namespace kvasir
