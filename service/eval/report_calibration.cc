#include "service/eval/report_calibration.h"

#include <algorithm>

#include "service/eval/clean_text.h"
#include "service/eval/item_json.h"
#include "service/eval/report_numbers.h"
#include "service/eval/report_plot_frame.h"
#include "service/text_table.h"

namespace kvasir {
namespace {

namespace json = boost::json;

json::object PointToJson(const CalibrationPoint& point) {
  return {{"lambda", point.lambda}, {"risk", point.risk},   {"bound", point.bound},
          {"over", point.over},     {"exact", point.exact}, {"charged", point.charged}};
}

CalibrationPoint ReadPoint(ObjectReader* reader) {
  CalibrationPoint point;
  point.lambda = reader->Number("lambda");
  point.risk = reader->Number("risk");
  point.bound = reader->Number("bound");
  point.over = reader->Number("over");
  point.exact = reader->Number("exact");
  point.charged = reader->Number("charged");
  return point;
}

std::string NameOf(const EvalCalibration& calibration) {
  return "certify(" + ShortNumber(calibration.epsilon) + "," + ShortNumber(calibration.alpha) +
         "), " + calibration.ingestion + ", " + calibration.codec;
}

std::string SentenceOf(const EvalCalibration& calibration) {
  const std::string samples = std::to_string(calibration.samples) + " samples";
  if (!calibration.lambda) {
    return samples + " allow no stop before exact: more questions, or a larger eps or alpha";
  }
  return samples + "; it stops at the first rung that moves by at most lambda " +
         ShortNumber(*calibration.lambda) + " nats, and otherwise goes to exact";
}

bool IsChosen(const EvalCalibration& calibration, const CalibrationPoint& point) {
  return calibration.lambda && point.lambda == *calibration.lambda;
}

std::vector<std::string> CellsOf(const CalibrationPoint& point) {
  return {ShortNumber(point.lambda), PercentText(point.risk),  PercentText(point.bound),
          PercentText(point.over),   PercentText(point.exact), PercentText(point.charged)};
}

const std::vector<TableColumn>& Columns() {
  static const std::vector<TableColumn> columns = {{"lambda", 8, true},   {"lost", 7, true},
                                                   {"bound", 7, true},    {"KL > eps", 8, true},
                                                   {"to exact", 8, true}, {"charged", 8, true}};
  return columns;
}

std::string HtmlCurve(const EvalCalibration& calibration) {
  std::string table = "<table><thead><tr>";
  for (const TableColumn& column : Columns()) {
    table += "<th scope=\"col\">" + EscapeHtml(column.title) + "</th>";
  }
  table += "</tr></thead>\n<tbody>\n";
  for (const CalibrationPoint& point : calibration.curve) {
    table += IsChosen(calibration, point) ? "<tr class=\"best\">" : "<tr>";
    for (const std::string& cell : CellsOf(point)) table += "<td>" + cell + "</td>";
    table += "</tr>\n";
  }
  return table + "</tbody></table>\n";
}

void Curve(const EvalCalibration& calibration, double CalibrationPoint::*value, const char* style,
           const PlotFrame& frame, SvgCanvas* canvas) {
  std::vector<std::pair<double, double>> line;
  for (const CalibrationPoint& point : calibration.curve) {
    line.emplace_back(frame.x.At(point.lambda), frame.y.At(point.*value));
  }
  canvas->Polyline(line, style);
}

std::string Legend() {
  return "<ul class=\"legend\"><li>" + LineSample("curve k0") + "share lost</li><li>" +
         LineSample("curve k1") + "mean charged fraction</li></ul>\n";
}

}  // namespace

json::object CalibrationToJson(const EvalCalibration& calibration) {
  json::array curve;
  for (const CalibrationPoint& point : calibration.curve) curve.push_back(PointToJson(point));
  return {{"ingestion", calibration.ingestion},
          {"codec", calibration.codec},
          {"epsilon", calibration.epsilon},
          {"alpha", calibration.alpha},
          {"samples", calibration.samples},
          {"lambda", calibration.lambda ? json::value(*calibration.lambda) : json::value(nullptr)},
          {"curve", std::move(curve)}};
}

Result<EvalCalibration> CalibrationFromJson(const json::value& value, std::string where) {
  ObjectReader reader(value, where);
  EvalCalibration calibration;
  calibration.ingestion = reader.Text("ingestion");
  calibration.codec = reader.Text("codec");
  calibration.epsilon = reader.Number("epsilon");
  calibration.alpha = reader.Number("alpha");
  calibration.samples = reader.Integer("samples");
  calibration.lambda = reader.MaybeNumber("lambda");
  const json::array* curve = reader.Array("curve");
  KVASIR_RETURN_IF_ERROR(reader.status());
  for (size_t i = 0; i < curve->size(); ++i) {
    ObjectReader point((*curve)[i], where + ".curve[" + std::to_string(i) + "]");
    calibration.curve.push_back(ReadPoint(&point));
    KVASIR_RETURN_IF_ERROR(point.status());
  }
  return calibration;
}

std::string FormatCalibrations(const EvalReport& report) {
  std::string text;
  for (const EvalCalibration& calibration : report.calibrations) {
    std::vector<std::vector<std::string>> rows;
    for (const CalibrationPoint& point : calibration.curve) {
      rows.push_back(CellsOf(point));
      if (IsChosen(calibration, point)) rows.back()[0] = "* " + rows.back()[0];
    }
    text += "\n" + NameOf(calibration) + ": " + SentenceOf(calibration) + "\n" +
            FormatTable(Columns(), rows, TableRules::kAsked);
  }
  if (text.empty()) return text;
  return text +
         "lost: KL > eps at this lambda or a smaller one; bound: lost by n+1 samples, to be at "
         "most alpha;\ncharged: of all rows, those of tried rungs included. *: chosen.\n";
}

std::string CalibrationPlot(const EvalCalibration& calibration, size_t index, PlotSize size) {
  if (calibration.curve.empty()) return "";
  PlotFrame frame = MakeFrame(size);
  std::vector<double> lambdas;
  double top = 1;
  for (const CalibrationPoint& point : calibration.curve) {
    lambdas.push_back(point.lambda);
    top = std::max({top, point.risk, point.charged});
  }
  frame.x.log = true;
  FitLog(lambdas, 5, &frame.x);
  frame.y.high = top * 1.05;
  frame.x_title = "lambda, nats";
  frame.y_title = "share";
  frame.x_text = TickNumber;
  frame.y_text = ShortPercent;
  SvgCanvas canvas(frame.width, frame.height, PlotId("calibration" + std::to_string(index), size),
                   "Calibration of " + NameOf(calibration), SentenceOf(calibration));
  DrawFrame(frame, &canvas);
  const double alpha = frame.y.At(calibration.alpha);
  canvas.Line(frame.x.from, alpha, frame.x.to, alpha, "reference");
  canvas.Text(frame.x.to - 4, alpha - 5, Anchor::kEnd, "label soft",
              "alpha " + ShortNumber(calibration.alpha));
  Curve(calibration, &CalibrationPoint::risk, "curve k0", frame, &canvas);
  Curve(calibration, &CalibrationPoint::charged, "curve k1", frame, &canvas);
  if (calibration.lambda) {
    const double x = frame.x.At(*calibration.lambda);
    canvas.Line(x, frame.y.from, x, frame.y.to, "reference");
  }
  return canvas.Finish();
}

std::string HtmlCalibrations(const EvalReport& report) {
  std::string text;
  for (size_t i = 0; i < report.calibrations.size(); ++i) {
    const EvalCalibration& calibration = report.calibrations[i];
    text += "<h3>" + EscapeHtml(NameOf(calibration)) + "</h3>\n<p>" +
            EscapeHtml(SentenceOf(calibration)) + ".</p>\n";
    if (calibration.curve.empty()) continue;
    text += "<figure>" + Legend() + "<div class=\"wide\">" +
            CalibrationPlot(calibration, i, PlotSize::kWide) + "</div><div class=\"narrow\">" +
            CalibrationPlot(calibration, i, PlotSize::kNarrow) +
            "</div><figcaption>What another lambda would have done to the samples; rungs that were "
            "tried are charged.</figcaption></figure>\n" +
            "<div class=\"scroll\" role=\"region\" aria-label=\"Calibration\" tabindex=\"0\">" +
            HtmlCurve(calibration) + "</div>\n";
  }
  return text.empty() ? text : "<h2>Calibration of certify</h2>\n" + text;
}

}  // namespace kvasir
