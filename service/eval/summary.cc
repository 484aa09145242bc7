#include "service/eval/summary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kvasir {
namespace {

using Column = std::map<int64_t, double>;  // item index -> the metric's value

bool IsPooled(EvalMetric metric) {
  return metric == EvalMetric::kKlP50 || metric == EvalMetric::kKlP95 ||
         metric == EvalMetric::kKlMax || metric == EvalMetric::kKlItemsP95;
}

double PooledShare(EvalMetric metric) {
  return metric == EvalMetric::kKlP50 ? 0.5 : metric == EvalMetric::kKlMax ? 1.0 : 0.95;
}

double MeanOf(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Column ColumnOf(const EvalRow& row, EvalMetric metric) {
  Column column;
  for (const ItemResult& result : row.items) {
    const std::optional<double> value = ItemMetric(result, metric);
    if (value) column[result.item] = *value;
  }
  return column;
}

// The values of the items that are in both.
void Join(const Column& a, const Column& b, std::vector<double>* in_a, std::vector<double>* in_b) {
  for (const auto& [item, value] : a) {
    const auto found = b.find(item);
    if (found == b.end()) continue;
    in_a->push_back(value);
    in_b->push_back(found->second);
  }
}

// Bootstraps by number of items: the draws are the same for every row and metric.
class Summariser {
 public:
  Summariser(const EvalReport& report, int32_t resamples)
      : report_(report), resamples_(resamples) {}

  RowSummary Summarise(const EvalRow& row) {
    RowSummary summary;
    summary.items = static_cast<int64_t>(row.items.size());
    for (size_t i = 0; i < kEvalMetrics; ++i) {
      const auto metric = static_cast<EvalMetric>(i);
      summary.metrics[i] = IsPooled(metric) ? Pooled(row, metric) : Mean(row, metric);
    }
    if (const EvalRow* concat = ConcatBeside(row)) {
      for (size_t i = 0; i < kEvalMetrics; ++i) {
        summary.vs_concat[i] = Difference(row, *concat, static_cast<EvalMetric>(i));
      }
    }
    summary.speedup = Speedup(row);
    return summary;
  }

 private:
  const Bootstrap& Over(size_t items) {
    auto found = bootstraps_.find(items);
    if (found == bootstraps_.end()) {
      const Bootstrap made(static_cast<int64_t>(items), report_.seed, resamples_);
      found = bootstraps_.emplace(items, made).first;
    }
    return found->second;
  }

  std::optional<Estimate> Mean(const EvalRow& row, EvalMetric metric) {
    std::vector<double> values;
    for (const auto& [item, value] : ColumnOf(row, metric)) values.push_back(value);
    if (values.empty()) return std::nullopt;
    return Over(values.size()).Mean(values);
  }

  std::optional<Estimate> Pooled(const EvalRow& row, EvalMetric metric) {
    std::vector<std::vector<double>> values;
    for (const ItemResult& result : row.items) {
      if (result.kl.empty()) continue;
      values.push_back(metric == EvalMetric::kKlItemsP95 ? std::vector{MeanOf(result.kl)}
                                                         : result.kl);
    }
    if (values.empty()) return std::nullopt;
    return Over(values.size()).PooledPercentile(values, PooledShare(metric));
  }

  std::optional<Estimate> Difference(const EvalRow& a, const EvalRow& b, EvalMetric metric) {
    std::vector<double> in_a, in_b;
    Join(ColumnOf(a, metric), ColumnOf(b, metric), &in_a, &in_b);
    if (in_a.empty()) return std::nullopt;
    return Over(in_a.size()).MeanDifference(in_a, in_b);
  }

  std::optional<Estimate> Speedup(const EvalRow& row) {
    const EvalRow* exact = Find([](const EvalRow& other) { return other.policy == kExactRow; });
    if (exact == nullptr) return std::nullopt;
    std::vector<double> of_exact, of_row;
    Join(ColumnOf(*exact, EvalMetric::kTtftTotal), ColumnOf(row, EvalMetric::kTtftTotal), &of_exact,
         &of_row);
    if (of_exact.empty()) return std::nullopt;
    return Over(of_exact.size()).RatioOfMeans(of_exact, of_row);
  }

  const EvalRow* ConcatBeside(const EvalRow& row) const {
    const EvalRow* concat = Find([&row](const EvalRow& other) {
      return other.policy == kConcatRow && other.ingestion == row.ingestion &&
             other.codec == row.codec;
    });
    return concat == &row ? nullptr : concat;
  }

  template <typename Predicate>
  const EvalRow* Find(Predicate wanted) const {
    const auto found = std::find_if(report_.rows.begin(), report_.rows.end(), wanted);
    return found == report_.rows.end() ? nullptr : &*found;
  }

  const EvalReport& report_;
  int32_t resamples_;
  std::map<size_t, Bootstrap> bootstraps_;
};

}  // namespace

std::string_view MetricName(EvalMetric metric) {
  static constexpr std::array<std::string_view, kEvalMetrics> kNames = {
      "kl_step1",       "kl_mean",         "kl_p50",         "kl_p95",
      "kl_max",         "kl_items_p95",    "top1",           "first_divergence",
      "same_text",      "rouge_l",         "f1_full",        "f1_gold",
      "gold_loglik",    "refusal_rate",    "charged",        "question_share",
      "selected",       "ttft_ms.total",   "ttft_ms.lookup", "ttft_ms.load",
      "ttft_ms.repair", "ttft_ms.question"};
  return kNames[static_cast<size_t>(metric)];
}

std::optional<double> ItemMetric(const ItemResult& result, EvalMetric metric) {
  const bool has_kl = !result.kl.empty();
  const bool has_text = result.free_tokens > 0;
  auto of_text = [has_text](double value) {
    return has_text ? std::optional(value) : std::nullopt;
  };
  switch (metric) {
    case EvalMetric::kKlStep1:
      return has_kl ? std::optional(result.kl[0]) : std::nullopt;
    case EvalMetric::kKlMean:
      return has_kl ? std::optional(MeanOf(result.kl)) : std::nullopt;
    case EvalMetric::kTop1:
      if (!has_kl) return std::nullopt;
      return static_cast<double>(result.top1_matches) / static_cast<double>(result.kl.size());
    case EvalMetric::kFirstDivergence:
      return of_text(static_cast<double>(result.first_divergence < 0 ? result.free_tokens
                                                                     : result.first_divergence));
    case EvalMetric::kSameText:
      return of_text(result.first_divergence < 0 ? 1 : 0);
    case EvalMetric::kRougeL:
      return of_text(result.rouge_l);
    case EvalMetric::kF1Full:
      return of_text(result.f1_full);
    case EvalMetric::kF1Gold:
      return result.f1_gold;
    case EvalMetric::kGoldLoglik:
      return result.gold_loglik;
    case EvalMetric::kRefusalRate:
      return of_text(result.refused ? 1 : 0);
    case EvalMetric::kCharged:
      return result.charged;
    case EvalMetric::kQuestionShare:
      return result.question_share;
    case EvalMetric::kSelected:
      return result.selected;
    case EvalMetric::kTtftTotal:
      return result.ttft.total_ms;
    case EvalMetric::kTtftLookup:
      return result.ttft.lookup_ms;
    case EvalMetric::kTtftLoad:
      return result.ttft.load_ms;
    case EvalMetric::kTtftRepair:
      return result.ttft.repair_ms;
    case EvalMetric::kTtftQuestion:
      return result.ttft.question_ms;
    case EvalMetric::kKlP50:
    case EvalMetric::kKlP95:
    case EvalMetric::kKlMax:
    case EvalMetric::kKlItemsP95:
    case EvalMetric::kCount:
      break;
  }
  return std::nullopt;
}

std::vector<RowSummary> Summarise(const EvalReport& report, int32_t resamples) {
  Summariser summariser(report, resamples);
  std::vector<RowSummary> summaries;
  for (const EvalRow& row : report.rows) summaries.push_back(summariser.Summarise(row));
  return summaries;
}

std::string RowName(const EvalRow& row, bool with_codec) {
  std::string name = row.ingestion;
  if (!name.empty()) name += ' ';
  name += row.policy;
  if (with_codec && !row.codec.empty()) name += ", " + row.codec;
  return name;
}

}  // namespace kvasir
