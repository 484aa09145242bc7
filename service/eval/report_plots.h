// The plots of a report as SVG, each for a wide and for a narrow page, with legends as HTML. Pure;
// thread-safe.
#pragma once

#include <string>
#include <vector>

#include "service/eval/result.h"
#include "service/eval/summary.h"

namespace kvasir {

enum class PlotSize { kWide, kNarrow };

struct PlotData {
  const EvalReport& report;
  const std::vector<RowSummary>& summaries;
};

// `metric` (nats, logarithmic) over the charged fraction (logarithmic), one mark a row with its
// interval, labelled; the Pareto front; lines for no context and the noise floor. "" if no row can
// be drawn.
std::string ScatterPlot(const PlotData& data, EvalMetric metric, PlotSize size);
std::string ScatterLegend(const PlotData& data);

// Mean KL of each step of the answer for no context, the best concat and the Pareto front (at most
// seven rows). "" if there is none.
std::string StepPlot(const PlotData& data, PlotSize size);
std::string StepLegend(const PlotData& data);

// Mean time to first token by parts, a bar a row; of more than 16 rows the references, concat and
// the Pareto front. The axis ends behind the longest fused row where
// exact is far longer; a bar that is cut says its number.
std::string TtftPlot(const PlotData& data, PlotSize size);
std::string TtftLegend();

}  // namespace kvasir
