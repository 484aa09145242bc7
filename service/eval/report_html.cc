#include "service/eval/report_html.h"

#include "kernels/core/status.h"
#include "service/eval/clean_text.h"
#include "service/eval/report_calibration.h"
#include "service/eval/report_findings.h"
#include "service/eval/report_html_parts.h"
#include "service/eval/report_plots.h"
#include "service/eval/report_style.h"

namespace kvasir {
namespace {

// A plot in both sizes; the style sheet shows one.
std::string Figure(const std::string& title, const std::string& legend, const std::string& wide,
                   const std::string& narrow, const std::string& caption) {
  if (wide.empty()) return "";
  return "<figure><h3>" + title + "</h3>\n" + legend + "<div class=\"wide\">" + wide +
         "</div><div class=\"narrow\">" + narrow + "</div><figcaption>" + caption +
         "</figcaption></figure>\n";
}

std::string Scatter(const PlotData& data, EvalMetric metric, const std::string& title) {
  return Figure(title, ScatterLegend(data), ScatterPlot(data, metric, PlotSize::kWide),
                ScatterPlot(data, metric, PlotSize::kNarrow),
                "Lower and further left is better; both axes are logarithmic, bars are "
                "95\u00A0% intervals. Marks without a name: see the table.");
}

std::string Plots(const PlotData& data) {
  const std::string steps = Figure(
      "Damage along the answer", StepLegend(data), StepPlot(data, PlotSize::kWide),
      StepPlot(data, PlotSize::kNarrow),
      "Mean over the questions whose answer reaches the token. No context, the best concat and the "
      "best policies.");
  const std::string ttft =
      Figure("Time to first token", TtftLegend(), TtftPlot(data, PlotSize::kWide),
             TtftPlot(data, PlotSize::kNarrow),
             "Means over questions. A bar with two cuts goes on to the number beside it. Of very "
             "many rows "
             "only the references, concat and the Pareto front are drawn.");
  return Scatter(data, EvalMetric::kKlStep1, "Damage at the first token against cost") +
         Scatter(data, EvalMetric::kKlMean, "Mean damage against cost") + steps + ttft;
}

std::string Head(const EvalReport& report) {
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>Kvasir "
         "eval: " +
         EscapeHtml(report.model) + "</title>\n<style>" + std::string(kReportStyle) +
         "</style>\n</head>\n";
}

std::string Subtitle(const EvalReport& report) {
  return std::to_string(report.questions.size()) + " questions of " + report.questions_file +
         ", seed " + std::to_string(report.seed) +
         (report.started.empty() ? "" : ", " + report.started);
}

}  // namespace

std::string ReportToHtml(const EvalReport& report, const std::vector<RowSummary>& summaries) {
  KVASIR_CHECK(summaries.size() == report.rows.size());
  const PlotData data{report, summaries};
  const std::string worst = HtmlWorstItems(data);
  return Head(report) + "<body><main>\n<h1>How far answers from chunk KV are from full prefill: " +
         EscapeHtml(report.model) + "</h1>\n<p class=\"soft\">" + EscapeHtml(Subtitle(report)) +
         "</p>\n<p class=\"lead\">" + EscapeHtml(SummarySentence(report, summaries)) +
         "</p>\n<h2>All rows</h2>\n" + HtmlTable(data) + "<h2>Plots</h2>\n<div class=\"plots\">\n" +
         Plots(data) + "</div>\n" + HtmlCalibrations(report) +
         (worst.empty() ? "" : "<h2>Worst questions of each policy</h2>\n" + worst) +
         "<h2>How this was made</h2>\n" + HtmlHowMade(data) + "</main></body>\n</html>\n";
}

}  // namespace kvasir
