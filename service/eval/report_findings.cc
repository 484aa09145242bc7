#include "service/eval/report_findings.h"

#include <algorithm>
#include <cmath>

#include "service/eval/report_numbers.h"

namespace kvasir {
namespace {

double ValueOf(const RowSummary& summary, EvalMetric metric) {
  const auto& estimate = summary.Of(metric);
  return estimate ? estimate->value : std::nan("");
}

std::string WithInterval(const std::optional<Estimate>& estimate) {
  return estimate ? ShortNumber(estimate->value) + " " + IntervalText(*estimate, ShortNumber)
                  : "not measured";
}

// The best concat row: what is had for nothing.
std::optional<size_t> BestConcat(const EvalReport& report,
                                 const std::vector<RowSummary>& summaries) {
  std::optional<size_t> best;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const double kl = ValueOf(summaries[i], EvalMetric::kKlMean);
    const EvalRow& row = report.rows[i];
    if (row.policy != kConcatRow || IsReferenceRow(row) || std::isnan(kl)) continue;
    if (!best || kl < ValueOf(summaries[*best], EvalMetric::kKlMean)) best = i;
  }
  return best;
}

std::string Beside(const EvalReport& report, const std::vector<RowSummary>& summaries,
                   size_t best) {
  std::string text;
  auto add = [&](const std::string& what, size_t i) {
    if (!summaries[i].Of(EvalMetric::kKlMean)) return;
    text += (text.empty() ? " Beside it, mean KL: " : "; ") + what + " " +
            ShortNumber(ValueOf(summaries[i], EvalMetric::kKlMean));
  };
  const std::optional<size_t> concat = BestConcat(report, summaries);
  if (concat && *concat != best) add("chunks put together as stored", *concat);
  for (size_t i = 0; i < report.rows.size(); ++i) {
    if (report.rows[i].policy == kNoContextRow) add("passages left out", i);
    if (report.rows[i].policy == kNoiseFloorRow) add("noise floor", i);
  }
  return text.empty() ? "" : text + ".";
}

std::string Speed(const EvalReport& report, const std::vector<RowSummary>& summaries, size_t best) {
  const double ms = ValueOf(summaries[best], EvalMetric::kTtftTotal);
  if (std::isnan(ms)) return "";
  std::string text = ", first token after " + MillisecondsText(ms) + " ms";
  for (size_t i = 0; i < report.rows.size(); ++i) {
    if (report.rows[i].policy != kExactRow || !summaries[best].speedup) continue;
    text += " instead of " + MillisecondsText(ValueOf(summaries[i], EvalMetric::kTtftTotal)) +
            " ms (" + TimesText(summaries[best].speedup->value) + " faster)";
    break;
  }
  return text;
}

}  // namespace

bool IsReferenceRow(const EvalRow& row) {
  return row.policy == kExactRow || row.policy == kNoiseFloorRow || row.policy == kNoContextRow ||
         row.ingestion == kInPlaceIngestion;
}

std::vector<size_t> ParetoFront(const EvalReport& report, const std::vector<RowSummary>& summaries,
                                EvalMetric metric) {
  std::vector<size_t> rows;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const bool measured = !std::isnan(ValueOf(summaries[i], metric)) &&
                          !std::isnan(ValueOf(summaries[i], EvalMetric::kCharged));
    if (!IsReferenceRow(report.rows[i]) && measured) rows.push_back(i);
  }
  std::stable_sort(rows.begin(), rows.end(), [&](size_t a, size_t b) {
    const double charged_a = ValueOf(summaries[a], EvalMetric::kCharged);
    const double charged_b = ValueOf(summaries[b], EvalMetric::kCharged);
    if (charged_a != charged_b) return charged_a < charged_b;
    return ValueOf(summaries[a], metric) < ValueOf(summaries[b], metric);
  });
  std::vector<size_t> front;
  for (const size_t row : rows) {
    if (front.empty() || ValueOf(summaries[row], metric) < ValueOf(summaries[front.back()], metric))
      front.push_back(row);
  }
  return front;
}

std::optional<size_t> BestRow(const EvalReport& report, const std::vector<RowSummary>& summaries) {
  const std::vector<size_t> front = ParetoFront(report, summaries, EvalMetric::kKlMean);
  if (front.empty()) return std::nullopt;
  size_t best = front.front();  // along the front KL falls as the charge rises
  for (const size_t row : front) {
    if (ValueOf(summaries[row], EvalMetric::kCharged) <= kCheapCharge) best = row;
  }
  return best;
}

std::string SummarySentence(const EvalReport& report, const std::vector<RowSummary>& summaries) {
  const std::optional<size_t> best = BestRow(report, summaries);
  if (!best) return "No policy was measured beside the reference rows.";
  const RowSummary& summary = summaries[*best];
  const double charged = ValueOf(summary, EvalMetric::kCharged);
  const std::string which =
      charged <= kCheapCharge
          ? std::string("Of what computes at most a fifth of the rows, closest to full prefill is ")
          : std::string("Nothing here computes less than a fifth of the rows; the cheapest is ");
  return which + RowName(report.rows[*best]) + ": KL " +
         WithInterval(summary.Of(EvalMetric::kKlStep1)) +
         " nats at the first token of the answer, " +
         WithInterval(summary.Of(EvalMetric::kKlMean)) +
         " on average, the same most probable token " +
         ValueText(summary.Of(EvalMetric::kTop1), PercentText) + " of the time, " +
         PercentText(charged) + " of the rows computed" + Speed(report, summaries, *best) + "." +
         Beside(report, summaries, *best);
}

}  // namespace kvasir
