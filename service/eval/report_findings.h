// What a report says: which rows are worth taking, and one sentence about the best. Pure;
// thread-safe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "service/eval/result.h"
#include "service/eval/summary.h"

namespace kvasir {

// exact, noise floor, no context and in_place: what the other rows are measured by.
bool IsReferenceRow(const EvalRow& row);

// Rows (no reference rows) that no other beats in both charged fraction and `metric`; indices by
// ascending charged fraction.
std::vector<size_t> ParetoFront(const EvalReport& report, const std::vector<RowSummary>& summaries,
                                EvalMetric metric);

inline constexpr double kCheapCharge = 0.2;  // "a fifth" in SummarySentence
// The row of least mean KL among those that charge at most kCheapCharge; among all if none does.
std::optional<size_t> BestRow(const EvalReport& report, const std::vector<RowSummary>& summaries);

// One or two sentences: the best row, and what it is to be seen beside.
std::string SummarySentence(const EvalReport& report, const std::vector<RowSummary>& summaries);

}  // namespace kvasir
