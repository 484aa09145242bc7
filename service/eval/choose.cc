#include "service/eval/choose.h"

#include "cache/fusion_policy.h"

namespace kvasir {
namespace {

double Value(const RowSummary& summary, EvalMetric metric) {
  const auto& estimate = summary.Of(metric);
  return estimate ? estimate->value : 1e9;
}

bool IsFused(const EvalRow& row) {
  const auto policy = ParsePolicy(row.policy);
  return policy.ok() && policy->kind == PolicyKind::kFused;
}

bool Keeps(const RowSummary& summary, const ChoiceTarget& target) {
  return Value(summary, EvalMetric::kKlMean) <= target.kl_mean &&
         Value(summary, EvalMetric::kKlStep1) <= target.kl_step1;
}

double Distance(const RowSummary& summary) {
  return Value(summary, EvalMetric::kKlMean) + Value(summary, EvalMetric::kKlStep1);
}

}  // namespace

std::optional<size_t> ChooseRow(const EvalReport& report, const std::vector<RowSummary>& summaries,
                                const std::string& ingestion, const std::string& codec,
                                const ChoiceTarget& target) {
  std::optional<size_t> cheapest, closest;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    const EvalRow& row = report.rows[i];
    const RowSummary& summary = summaries[i];
    if (row.ingestion != ingestion || row.codec != codec || !IsFused(row)) continue;
    const double charged = Value(summary, EvalMetric::kCharged);
    if (summary.items == 0 || charged > target.max_charged) continue;
    if (!closest || Distance(summary) < Distance(summaries[*closest])) closest = i;
    if (!Keeps(summary, target)) continue;
    if (!cheapest || charged < Value(summaries[*cheapest], EvalMetric::kCharged)) cheapest = i;
  }
  return cheapest ? cheapest : closest;
}

}  // namespace kvasir
