#include <algorithm>
#include <cmath>

#include "service/eval/clean_text.h"
#include "service/eval/report_findings.h"
#include "service/eval/report_numbers.h"
#include "service/eval/report_plot_frame.h"
#include "service/eval/report_plots.h"

namespace kvasir {
namespace {

struct Point {
  size_t row;
  double charged;
  Estimate kl;
  bool in_front;
};

// Rows that can be drawn, the Pareto front first: its labels get the best places.
std::vector<Point> Points(const PlotData& data, EvalMetric metric) {
  const std::vector<size_t> front = ParetoFront(data.report, data.summaries, metric);
  std::vector<Point> points;
  for (size_t i = 0; i < data.report.rows.size(); ++i) {
    const auto& kl = data.summaries[i].Of(metric);
    const auto& charged = data.summaries[i].Of(EvalMetric::kCharged);
    if (IsReferenceRow(data.report.rows[i]) || !kl || !charged || !std::isfinite(kl->value))
      continue;
    const bool in_front = std::find(front.begin(), front.end(), i) != front.end();
    points.push_back({i, charged->value, *kl, in_front});
  }
  std::stable_sort(points.begin(), points.end(), [](const Point& a, const Point& b) {
    return a.in_front != b.in_front ? a.in_front : a.charged < b.charged;
  });
  return points;
}

// The value of the row with this policy, if there is one.
std::optional<double> ReferenceValue(const PlotData& data, const char* policy, EvalMetric metric) {
  for (size_t i = 0; i < data.report.rows.size(); ++i) {
    const auto& kl = data.summaries[i].Of(metric);
    if (data.report.rows[i].policy == policy && kl) return kl->value;
  }
  return std::nullopt;
}

void FitAxes(const PlotData& data, EvalMetric metric, const std::vector<Point>& points,
             PlotFrame* frame) {
  std::vector<double> kls, charges;
  for (const Point& point : points) {
    kls.insert(kls.end(), {point.kl.value, point.kl.low, point.kl.high});
    charges.push_back(point.charged);
  }
  if (const auto value = ReferenceValue(data, kNoContextRow, metric)) kls.push_back(*value);
  FitLog(kls, 4, &frame->y);
  FitLog(charges, 4, &frame->x);
  frame->x.high = std::clamp(frame->x.high, frame->x.low * 2, std::max(1.0, frame->x.low * 2));
}

std::string PointText(const PlotData& data, const Point& point) {
  return RowName(data.report.rows[point.row]) + ": " + PercentText(point.charged) +
         " of the rows, KL " + ShortNumber(point.kl.value) + " " +
         IntervalText(point.kl, ShortNumber);
}

std::string Description(const PlotData& data, const std::vector<Point>& points) {
  std::string text = "One mark a policy; lower and further left is better.";
  for (const Point& point : points) {
    text += " " + PointText(data, point) + (point.in_front ? " (on the Pareto front)." : ".");
  }
  return text;
}

// A horizontal line with its name at the right end.
void DrawReference(const PlotData& data, const char* policy, EvalMetric metric,
                   const PlotFrame& frame, SvgCanvas* canvas, LabelPlacer* labels) {
  const std::optional<double> value = ReferenceValue(data, policy, metric);
  if (!value || *value < frame.y.low || *value > frame.y.high) return;
  const double y = frame.y.At(*value);
  const std::string text = std::string(policy) + " " + ShortNumber(*value);
  const double width = 6.6 * static_cast<double>(text.size());
  canvas->Line(frame.x.from, y, frame.x.to, y, "reference");
  canvas->Text(frame.x.to - 4, y - 5, Anchor::kEnd, "label soft", text);
  labels->Block({frame.x.to - 4 - width, y - 17, width, 18});
}

void DrawFront(const std::vector<Point>& points, const PlotFrame& frame, SvgCanvas* canvas) {
  std::vector<std::pair<double, double>> stairs;
  for (const Point& point : points) {
    if (!point.in_front) continue;
    const double x = frame.x.At(point.charged), y = frame.y.At(point.kl.value);
    if (!stairs.empty()) stairs.emplace_back(x, stairs.back().second);
    stairs.emplace_back(x, y);
  }
  if (stairs.size() > 1) canvas->Polyline(stairs, "front");
}

void DrawLabels(const PlotData& data, const std::vector<Point>& points, const PlotFrame& frame,
                PlotSize size, SvgCanvas* canvas, LabelPlacer* labels) {
  const bool codecs = HasSeveralCodecs(data.report);
  for (const Point& point : points) {
    const EvalRow& row = data.report.rows[point.row];
    const std::string text =
        Shortened(row.policy + (codecs ? " " + row.codec : ""), size == PlotSize::kWide ? 36 : 18);
    const double x = frame.x.At(point.charged), y = frame.y.At(point.kl.value);
    const LabelPlacer::Place place = labels->Find(x, y, text, point.in_front);
    if (place.free || point.in_front) canvas->Text(place.x, place.y, place.anchor, "label", text);
  }
}

}  // namespace

std::string ScatterPlot(const PlotData& data, EvalMetric metric, PlotSize size) {
  const std::vector<Point> points = Points(data, metric);
  if (points.empty()) return "";
  PlotFrame frame = MakeFrame(size);
  FitAxes(data, metric, points, &frame);
  frame.x_title = "charged: share of the rows computed at request time";
  if (size == PlotSize::kNarrow) frame.x_title = "charged: share of rows computed";
  const bool step1 = metric == EvalMetric::kKlStep1;
  frame.y_title = step1 ? "KL at the first token, nats" : "mean KL, nats";
  frame.x_text = ShortPercent;
  frame.y_text = TickNumber;
  SvgCanvas canvas(frame.width, frame.height, PlotId(MetricName(metric), size),
                   frame.y_title + " over the charged fraction", Description(data, points));
  DrawFrame(frame, &canvas);
  LabelPlacer labels(
      {frame.x.from, frame.y.to - 8, frame.x.to - frame.x.from, frame.y.from - frame.y.to + 6});
  DrawReference(data, kNoContextRow, metric, frame, &canvas, &labels);
  DrawReference(data, kNoiseFloorRow, metric, frame, &canvas, &labels);
  DrawFront(points, frame, &canvas);
  const std::vector<std::string> names = SeriesNames(data.report);
  for (const Point& point : points) {
    const size_t series = SeriesOf(names, data.report.rows[point.row]);
    const std::string colour = "s" + std::to_string(series % kSeriesColours);
    const double x = frame.x.At(point.charged), y = frame.y.At(point.kl.value);
    canvas.Line(x, frame.y.At(point.kl.low), x, frame.y.At(point.kl.high), "interval " + colour);
    canvas.Mark(static_cast<Marker>(series % kMarkers), x, y, "mark " + colour,
                PointText(data, point));
    labels.Block({x - 6, y - 6, 12, 12});
  }
  DrawLabels(data, points, frame, size, &canvas, &labels);
  return canvas.Finish();
}

std::string ScatterLegend(const PlotData& data) {
  std::string legend = "<ul class=\"legend\">";
  const std::vector<std::string> names = SeriesNames(data.report);
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string name = names[i].empty() ? "no ingestion condition" : names[i];
    legend += "<li>" +
              MarkerSample(static_cast<Marker>(i % kMarkers),
                           "mark s" + std::to_string(i % kSeriesColours)) +
              EscapeHtml(name) + "</li>";
  }
  return legend + "<li>" + LineSample("front") + "Pareto front</li></ul>\n";
}

}  // namespace kvasir
