// Parts of the HTML report. Pure; thread-safe. Each is whole elements, every text escaped.
#pragma once

#include <string>

#include "service/eval/report_plots.h"

namespace kvasir {

// The table of all rows with intervals; columns that no row has a value for are left out.
std::string HtmlTable(const PlotData& data);
// For each row but exact and the noise floor: the items it answers worst, and what it said.
std::string HtmlWorstItems(const PlotData& data);
// Seed, model, settings, and what each number means.
std::string HtmlHowMade(const PlotData& data);

}  // namespace kvasir
