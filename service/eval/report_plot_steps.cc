#include <algorithm>
#include <cmath>

#include "service/eval/clean_text.h"
#include "service/eval/report_findings.h"
#include "service/eval/report_numbers.h"
#include "service/eval/report_plot_frame.h"
#include "service/eval/report_plots.h"

namespace kvasir {
namespace {

constexpr size_t kMostCurves = 7;    // k0 ... k6 in the style sheet
constexpr int64_t kFewestItems = 3;  // that reach a step, for it to be drawn

struct Curve {
  size_t row;
  std::vector<double> mean;  // nats by step, from the first
};

std::vector<double> MeanBySteps(const EvalRow& row) {
  const auto fewest = std::min<int64_t>(kFewestItems, static_cast<int64_t>(row.items.size()));
  std::vector<double> mean;
  for (size_t step = 0;; ++step) {
    double sum = 0;
    int64_t items = 0;
    for (const ItemResult& result : row.items) {
      if (step >= result.kl.size()) continue;
      sum += result.kl[step];
      ++items;
    }
    if (items == 0 || items < fewest || !std::isfinite(sum)) return mean;
    mean.push_back(sum / static_cast<double>(items));
  }
}

// No context, the best concat, and the front from its cheap end; in the report's order.
std::vector<size_t> RowsShown(const PlotData& data) {
  std::vector<size_t> rows;
  auto add = [&rows](size_t row) {
    const bool known = std::find(rows.begin(), rows.end(), row) != rows.end();
    if (!known && rows.size() < kMostCurves) rows.push_back(row);
  };
  std::optional<size_t> concat;
  for (size_t i = 0; i < data.report.rows.size(); ++i) {
    const auto& kl = data.summaries[i].Of(EvalMetric::kKlMean);
    if (!kl) continue;
    if (data.report.rows[i].policy == kNoContextRow) add(i);
    if (data.report.rows[i].policy != kConcatRow || IsReferenceRow(data.report.rows[i])) continue;
    if (!concat || kl->value < data.summaries[*concat].Of(EvalMetric::kKlMean)->value) concat = i;
  }
  if (concat) add(*concat);
  if (const auto best = BestRow(data.report, data.summaries)) add(*best);
  for (const size_t row : ParetoFront(data.report, data.summaries, EvalMetric::kKlMean)) add(row);
  std::sort(rows.begin(), rows.end());
  return rows;
}

std::vector<Curve> Curves(const PlotData& data) {
  std::vector<Curve> curves;
  for (const size_t row : RowsShown(data)) {
    Curve curve{row, MeanBySteps(data.report.rows[row])};
    if (!curve.mean.empty()) curves.push_back(std::move(curve));
  }
  return curves;
}

std::string Description(const PlotData& data, const std::vector<Curve>& curves) {
  std::string text = "One line a policy.";
  for (const Curve& curve : curves) {
    text += " " + RowName(data.report.rows[curve.row]) + ":";
    for (const double kl : curve.mean) text += " " + ShortNumber(kl);
    text += ".";
  }
  return text;
}

std::string CurveStyle(size_t i) { return "curve k" + std::to_string(i); }

}  // namespace

std::string StepPlot(const PlotData& data, PlotSize size) {
  const std::vector<Curve> curves = Curves(data);
  if (curves.empty()) return "";
  PlotFrame frame = MakeFrame(size);
  std::vector<double> values;
  size_t steps = 2;
  for (const Curve& curve : curves) {
    values.insert(values.end(), curve.mean.begin(), curve.mean.end());
    steps = std::max(steps, curve.mean.size());
  }
  FitLog(values, 4, &frame.y);
  frame.x.low = 1;
  frame.x.high = static_cast<double>(steps);
  frame.x_ticks = size == PlotSize::kWide ? 16 : 8;
  frame.x_title = "token of the answer";
  frame.y_title = "mean KL, nats";
  frame.x.whole = true;
  frame.x_text = TickNumber;
  frame.y_text = TickNumber;
  SvgCanvas canvas(frame.width, frame.height, PlotId("steps", size), "KL by token of the answer",
                   Description(data, curves));
  DrawFrame(frame, &canvas);
  for (size_t i = 0; i < curves.size(); ++i) {
    std::vector<std::pair<double, double>> points;
    for (size_t step = 0; step < curves[i].mean.size(); ++step) {
      points.emplace_back(frame.x.At(static_cast<double>(step + 1)),
                          frame.y.At(curves[i].mean[step]));
    }
    if (points.size() == 1) points.emplace_back(points[0].first + 6, points[0].second);
    canvas.Polyline(points, CurveStyle(i));
  }
  return canvas.Finish();
}

std::string StepLegend(const PlotData& data) {
  std::string legend = "<ul class=\"legend\">";
  const std::vector<Curve> curves = Curves(data);
  for (size_t i = 0; i < curves.size(); ++i) {
    legend += "<li>" + LineSample(CurveStyle(i)) +
              EscapeHtml(RowName(data.report.rows[curves[i].row], HasSeveralCodecs(data.report))) +
              "</li>";
  }
  return legend + "</ul>\n";
}

}  // namespace kvasir
