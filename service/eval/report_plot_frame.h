// What the plots of a report share: the frame with its axes, and which colour is whose. Pure.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "service/eval/report_plots.h"
#include "service/eval/svg.h"

namespace kvasir {

inline constexpr int kSeriesColours = 6;  // s0 ... s5 in the style sheet

// Ingestion conditions of rows that are no reference, in order of appearance: one series each.
std::vector<std::string> SeriesNames(const EvalReport& report);
// Index into SeriesNames; 0 if it is not there.
size_t SeriesOf(const std::vector<std::string>& names, const EvalRow& row);
bool HasSeveralCodecs(const EvalReport& report);

struct PlotFrame {
  double width = 0, height = 0;
  SvgAxis x, y;
  std::string x_title, y_title;
  std::function<std::string(double)> x_text, y_text;
  size_t x_ticks = 8, y_ticks = 8;  // at most
};

// Width, height and pixels of the axes for a plot of this size.
PlotFrame MakeFrame(PlotSize size);
void DrawFrame(const PlotFrame& frame, SvgCanvas* canvas);

// The logarithmic range around positive values: some room on both sides, at most `decades` below
// the largest. Values of zero or below, and none at all, are fine.
void FitLog(const std::vector<double>& values, double decades, SvgAxis* axis);

std::string PlotId(std::string_view name, PlotSize size);

}  // namespace kvasir
