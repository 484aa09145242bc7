// An EvalReport as a table for the terminal, at most 110 columns wide. Pure; thread-safe.
#pragma once

#include <string>
#include <vector>

#include "service/eval/result.h"
#include "service/eval/summary.h"

namespace kvasir {

// Rows by ingestion, with half widths of the 95 % intervals; below the table what the columns mean,
// the seed and the notes of the rows.
std::string FormatReport(const EvalReport& report, const std::vector<RowSummary>& summaries);

}  // namespace kvasir
