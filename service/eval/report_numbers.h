// The numbers of a report as people read them, alike in the table and on the page. Pure;
// thread-safe.
#pragma once

#include <optional>
#include <string>

#include "service/eval/bootstrap.h"

namespace kvasir {

// Three digits behind the point below 10, fewer above, "2e-06" below what three digits show: at
// most five characters up to 9999. "inf" if it is not finite.
std::string ShortNumber(double value);
std::string PercentText(double share);    // "16.0%"
std::string ShortPercent(double share);   // "16%", "1.5%": for axes
std::string TickNumber(double value);     // "0.02": for axes
std::string MillisecondsText(double ms);  // one digit behind the point up to 100
std::string TimesText(double ratio);      // "8.1x"
// Applies `text` to the value; "" without one.
std::string ValueText(const std::optional<Estimate>& estimate, std::string (*text)(double));
// "[0.012, 0.025]".
std::string IntervalText(const Estimate& estimate, std::string (*text)(double));

}  // namespace kvasir
