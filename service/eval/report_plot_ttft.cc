#include <algorithm>
#include <array>
#include <cmath>

#include "service/eval/clean_text.h"
#include "service/eval/report_findings.h"
#include "service/eval/report_numbers.h"
#include "service/eval/report_plot_frame.h"
#include "service/eval/report_plots.h"

namespace kvasir {
namespace {

constexpr double kBarHeight = 16, kRowHeight = 40;
constexpr size_t kManyRows = 16;

constexpr std::array<const char*, 5> kParts = {"look-up", "load", "repair", "question", "other"};

struct Bar {
  size_t row;
  std::array<double, kParts.size()> parts;  // milliseconds
  double total = 0;
};

// All rows but the noise floor; of very many those that matter: exact, no context, what is stored
// as it is, and the Pareto front.
bool IsShown(const PlotData& data, size_t row) {
  const std::string& policy = data.report.rows[row].policy;
  if (policy == kNoiseFloorRow) return false;
  if (data.report.rows.size() <= kManyRows || policy == kExactRow || policy == kNoContextRow ||
      policy == kConcatRow)
    return true;
  const std::vector<size_t> front = ParetoFront(data.report, data.summaries, EvalMetric::kKlMean);
  return std::find(front.begin(), front.end(), row) != front.end();
}

// Means; what the parts leave of the total is "other".
std::vector<Bar> Bars(const PlotData& data) {
  std::vector<Bar> bars;
  for (size_t i = 0; i < data.report.rows.size(); ++i) {
    const RowSummary& summary = data.summaries[i];
    if (!IsShown(data, i) || !summary.Of(EvalMetric::kTtftTotal)) continue;
    Bar bar{i,
            {summary.Of(EvalMetric::kTtftLookup)->value, summary.Of(EvalMetric::kTtftLoad)->value,
             summary.Of(EvalMetric::kTtftRepair)->value,
             summary.Of(EvalMetric::kTtftQuestion)->value, 0},
            summary.Of(EvalMetric::kTtftTotal)->value};
    double sum = 0;
    for (const double part : bar.parts) sum += part;
    bar.parts.back() = std::max(0.0, bar.total - sum);
    bar.total = std::max(bar.total, sum);
    if (std::isfinite(bar.total)) bars.push_back(bar);
  }
  return bars;
}

// Where the axis ends, in milliseconds: behind the longest bar, but for exact if it dwarfs the
// rest.
double AxisEnd(const PlotData& data, const std::vector<Bar>& bars) {
  constexpr double kDwarfs = 2.5;
  double longest = 0, longest_fused = 0;
  for (const Bar& bar : bars) {
    longest = std::max(longest, bar.total);
    if (data.report.rows[bar.row].policy != kExactRow)
      longest_fused = std::max(longest_fused, bar.total);
  }
  if (longest_fused > 0 && longest > kDwarfs * longest_fused) longest = longest_fused * 1.25;
  return longest > 0 ? longest : 1;
}

std::string Description(const PlotData& data, const std::vector<Bar>& bars) {
  std::string text = "One bar a policy.";
  for (const Bar& bar : bars) {
    text += " " + RowName(data.report.rows[bar.row]) + ": " + MillisecondsText(bar.total) + " ms";
    for (size_t part = 0; part < kParts.size(); ++part) {
      if (bar.parts[part] > 0)
        text += std::string(", ") + kParts[part] + " " + MillisecondsText(bar.parts[part]);
    }
    text += ".";
  }
  return text;
}

void DrawBar(const PlotData& data, const Bar& bar, const PlotFrame& frame, double top,
             SvgCanvas* canvas) {
  const std::string name = RowName(data.report.rows[bar.row], HasSeveralCodecs(data.report));
  const size_t room = frame.width > 500 ? 90 : 34;
  canvas->Text(frame.x.from, top + 11, Anchor::kStart, "label", Shortened(name, room));
  double begin = 0;
  for (size_t part = 0; part < kParts.size(); ++part) {
    const double from = frame.x.At(begin), to = frame.x.At(begin + bar.parts[part]);
    begin += bar.parts[part];
    if (to - from < 0.05) continue;
    canvas->Rectangle(
        from, top + 17, to - from, kBarHeight, "part p" + std::to_string(part),
        name + ", " + kParts[part] + ": " + MillisecondsText(bar.parts[part]) + " ms");
  }
  const double end = frame.x.At(bar.total);
  if (bar.total <= frame.x.high) {
    canvas->Text(end + 6, top + 29, Anchor::kStart, "label", MillisecondsText(bar.total) + " ms");
    return;
  }
  for (const double dx : {-14.0, -9.0}) {  // two strokes: the bar goes on
    canvas->Line(end + dx, top + 35, end + dx + 5, top + 15, "cut");
  }
  canvas->Text(end + 6, top + 29, Anchor::kStart, "label", MillisecondsText(bar.total) + " ms");
}

}  // namespace

std::string TtftPlot(const PlotData& data, PlotSize size) {
  const std::vector<Bar> bars = Bars(data);
  if (bars.empty()) return "";
  PlotFrame frame = MakeFrame(size);
  const double bottom = 12 + kRowHeight * static_cast<double>(bars.size());
  frame.height = bottom + 50;
  frame.x.from = 10;
  frame.x.to = frame.width - 70;
  frame.x.high = AxisEnd(data, bars);
  frame.x_ticks = size == PlotSize::kWide ? 9 : 5;
  SvgCanvas canvas(frame.width, frame.height, PlotId("ttft", size),
                   "Mean time to first token by parts", Description(data, bars));
  for (const double tick : frame.x.Ticks(frame.x_ticks)) {
    const double x = frame.x.At(tick);
    canvas.Line(x, 6, x, bottom, "grid");
    canvas.Text(x, bottom + 17, Anchor::kMiddle, "tick", TickNumber(tick));
  }
  canvas.Line(frame.x.from, 6, frame.x.from, bottom, "axis");
  canvas.Text((frame.x.from + frame.x.to) / 2, frame.height - 8, Anchor::kMiddle, "name",
              "time to first token, ms");
  for (size_t i = 0; i < bars.size(); ++i) {
    DrawBar(data, bars[i], frame, 8 + kRowHeight * static_cast<double>(i), &canvas);
  }
  return canvas.Finish();
}

std::string TtftLegend() {
  std::string legend = "<ul class=\"legend\">";
  for (size_t part = 0; part < kParts.size(); ++part) {
    legend +=
        "<li><span class=\"swatch p" + std::to_string(part) + "\"></span>" + kParts[part] + "</li>";
  }
  return legend + "</ul>\n";
}

}  // namespace kvasir
