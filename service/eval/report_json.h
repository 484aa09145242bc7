// An EvalReport as JSON, and back.
//
// Top level: what the report is of, `items` (their number), `rows`, `questions`. A row has each
// metric as a plain number under its name, the 95 % intervals under `ci95`, its paired differences
// to concat under `vs_concat`, and every item's own results under `per_item`. What is not a finite
// number is null. Pure functions; thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "kernels/core/status.h"
#include "service/eval/result.h"
#include "service/eval/summary.h"

namespace kvasir {

// Indented, with a line break at the end. `summaries` is Summarise(report).
std::string ReportToJson(const EvalReport& report, const std::vector<RowSummary>& summaries);

// Reads what ReportToJson wrote; the summaries follow from the items. kInvalidArgument names the
// field that is missing or wrong.
Result<EvalReport> ReportFromJson(std::string_view text);
// Names the file in errors; kNotFound if there is none.
Result<EvalReport> ReadReport(const std::string& path);

}  // namespace kvasir
