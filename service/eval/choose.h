// ChooseRow: which of an evaluation's policies `auto` runs under from now on.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "service/eval/result.h"
#include "service/eval/summary.h"

namespace kvasir {

struct ChoiceTarget {
  double kl_mean = 0.05;     // nats; the mean over items, not the interval's end
  double kl_step1 = 0.02;    // nats
  double max_charged = 0.2;  // of what may be chosen
};

// Among the rows of this ingestion and codec with a fused policy: the one with the smallest charged
// fraction that keeps both targets; if none does, the one with the smallest KL (mean + step 1)
// under max_charged. nullopt: there is no such row.
std::optional<size_t> ChooseRow(const EvalReport& report, const std::vector<RowSummary>& summaries,
                                const std::string& ingestion, const std::string& codec,
                                const ChoiceTarget& target = {});

}  // namespace kvasir
