#include "service/eval/report_plot_frame.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "service/eval/report_findings.h"

namespace kvasir {

std::vector<std::string> SeriesNames(const EvalReport& report) {
  std::vector<std::string> names;
  for (const EvalRow& row : report.rows) {
    const bool known = std::find(names.begin(), names.end(), row.ingestion) != names.end();
    if (!IsReferenceRow(row) && !known) names.push_back(row.ingestion);
  }
  return names;
}

size_t SeriesOf(const std::vector<std::string>& names, const EvalRow& row) {
  const auto found = std::find(names.begin(), names.end(), row.ingestion);
  return found == names.end() ? 0 : static_cast<size_t>(found - names.begin());
}

bool HasSeveralCodecs(const EvalReport& report) {
  std::set<std::string> codecs;
  for (const EvalRow& row : report.rows) {
    if (!row.codec.empty()) codecs.insert(row.codec);
  }
  return codecs.size() > 1;
}

PlotFrame MakeFrame(PlotSize size) {
  const bool wide = size == PlotSize::kWide;
  PlotFrame frame;
  frame.width = wide ? 620 : 360;
  frame.height = wide ? 420 : 380;
  frame.x.from = 62;
  frame.x.to = frame.width - 14;
  frame.y.from = frame.height - 50;
  frame.y.to = 14;
  frame.x_ticks = wide ? 9 : 5;
  return frame;
}

void DrawFrame(const PlotFrame& frame, SvgCanvas* canvas) {
  for (const double tick : frame.y.Ticks(frame.y_ticks)) {
    const double y = frame.y.At(tick);
    canvas->Line(frame.x.from, y, frame.x.to, y, "grid");
    canvas->Text(frame.x.from - 7, y + 4, Anchor::kEnd, "tick", frame.y_text(tick));
  }
  for (const double tick : frame.x.Ticks(frame.x_ticks)) {
    const double x = frame.x.At(tick);
    canvas->Line(x, frame.y.from, x, frame.y.from + 5, "axis");
    canvas->Text(x, frame.y.from + 19, Anchor::kMiddle, "tick", frame.x_text(tick));
  }
  canvas->Line(frame.x.from, frame.y.from, frame.x.to, frame.y.from, "axis");
  canvas->Text((frame.x.from + frame.x.to) / 2, frame.height - 8, Anchor::kMiddle, "name",
               frame.x_title);
  canvas->VerticalText(15, (frame.y.from + frame.y.to) / 2, "name", frame.y_title);
}

void FitLog(const std::vector<double>& values, double decades, SvgAxis* axis) {
  double low = 0, high = 0;
  for (const double value : values) {
    if (!std::isfinite(value) || value <= 0) continue;
    high = std::max(high, value);
    low = low == 0 ? value : std::min(low, value);
  }
  if (high == 0) low = high = 1e-3;
  constexpr double kRoom = 1.5;
  axis->log = true;
  axis->high = high * kRoom;
  axis->low = std::max(low, high * std::pow(10, -decades)) / kRoom;
}

std::string PlotId(std::string_view name, PlotSize size) {
  return std::string(name) + (size == PlotSize::kWide ? "-wide" : "-narrow");
}

}  // namespace kvasir
