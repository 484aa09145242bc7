// How certify is calibrated, as an evaluation shows it: JSON, a text table, and a part of the page.
// Pure; thread-safe.
#pragma once

#include <boost/json.hpp>
#include <string>

#include "kernels/core/status.h"
#include "service/eval/report_plots.h"
#include "service/eval/result.h"

namespace kvasir {

boost::json::object CalibrationToJson(const EvalCalibration& calibration);
Result<EvalCalibration> CalibrationFromJson(const boost::json::value& value, std::string where);

// One table a calibration; "" without any.
std::string FormatCalibrations(const EvalReport& report);
// Whole elements: the curve as a plot and as a table, one a calibration; "" without any.
std::string HtmlCalibrations(const EvalReport& report);

// Risk and mean charged fraction over lambda, the bound alpha as a line. "" without a point.
std::string CalibrationPlot(const EvalCalibration& calibration, size_t index, PlotSize size);

}  // namespace kvasir
