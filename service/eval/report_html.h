// An EvalReport as one HTML file that needs nothing else: styles and plots are inside, there is no
// script. For light and dark screens from 360 pixels on, and for screen readers. Every text of the
// report is escaped. Pure; thread-safe.
#pragma once

#include <string>
#include <vector>

#include "service/eval/result.h"
#include "service/eval/summary.h"

namespace kvasir {

std::string ReportToHtml(const EvalReport& report, const std::vector<RowSummary>& summaries);

}  // namespace kvasir
