// RowSummary: a row's items as the numbers that the table, the JSON and the page show.
//
// Pure functions; thread-safe. Every mean comes with a 95 % bootstrap interval over items (seed of
// the report). A metric is over the items that have it (gold answers are optional), and absent if
// none has.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "service/eval/bootstrap.h"
#include "service/eval/result.h"

namespace kvasir {

enum class EvalMetric {
  kKlStep1,          // nats, first token of the answer
  kKlMean,           // nats, mean over the item's steps
  kKlP50,            // nats, of all items' steps pooled; so are p95 and max
  kKlP95,            //
  kKlMax,            //
  kKlItemsP95,       // nats, of the items' means
  kTop1,             // share of steps with the same most probable token
  kFirstDivergence,  // tokens; an item without one counts with its free_tokens
  kSameText,         // share of items whose greedy tokens never diverge
  kRougeL,
  kF1Full,
  kF1Gold,
  kGoldLoglik,  // nats
  kRefusalRate,
  kCharged,
  kQuestionShare,
  kSelected,
  kTtftTotal,  // milliseconds, all five
  kTtftLookup,
  kTtftLoad,
  kTtftRepair,
  kTtftQuestion,
  kCount,
};
inline constexpr size_t kEvalMetrics = static_cast<size_t>(EvalMetric::kCount);

// The name in JSON: "kl_step1", ..., "ttft_ms.total".
std::string_view MetricName(EvalMetric metric);
// The metric of one item; nullopt if the item has none, and always for kKlP50, kKlP95, kKlMax,
// kKlItemsP95.
std::optional<double> ItemMetric(const ItemResult& result, EvalMetric metric);

using MetricValues = std::array<std::optional<Estimate>, kEvalMetrics>;

struct RowSummary {
  int64_t items = 0;
  MetricValues metrics;
  // This row minus the concat row of the same ingestion and codec, over the items both have.
  // Without pooled metrics; empty for that row itself and where there is none.
  MetricValues vs_concat;
  // Mean time to first token of the exact row / this row's, over the items both have.
  std::optional<Estimate> speedup;

  const std::optional<Estimate>& Of(EvalMetric metric) const {
    return metrics[static_cast<size_t>(metric)];
  }
};

// One a row, in the rows' order. `resamples` of the bootstrap.
std::vector<RowSummary> Summarise(const EvalReport& report,
                                  int32_t resamples = kBootstrapResamples);

// "primer(fixed) query(.05), int8": names a row in sentences and plots. Without a codec if
// `with_codec` is false.
std::string RowName(const EvalRow& row, bool with_codec = true);

}  // namespace kvasir
