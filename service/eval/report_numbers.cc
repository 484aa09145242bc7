#include "service/eval/report_numbers.h"

#include <cmath>
#include <cstdio>

#include "service/text_table.h"

namespace kvasir {

std::string ShortNumber(double value) {
  if (!std::isfinite(value)) return "inf";
  const double size = std::abs(value);
  if (size > 0 && size < 0.0005) {
    char text[16];
    std::snprintf(text, sizeof text, "%.0e", value);
    return text;
  }
  return Fixed(value, size < 9.9995 ? 3 : size < 99.995 ? 2 : size < 999.95 ? 1 : 0);
}

std::string PercentText(double share) { return Fixed(share * 100, 1) + "%"; }

std::string TickNumber(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

std::string ShortPercent(double share) { return TickNumber(share * 100) + "%"; }

std::string MillisecondsText(double ms) { return Fixed(ms, ms < 99.95 ? 1 : 0); }

std::string TimesText(double ratio) {
  if (!std::isfinite(ratio)) return "";
  return Fixed(ratio, ratio < 99.95 ? 1 : 0) + "x";
}

std::string ValueText(const std::optional<Estimate>& estimate, std::string (*text)(double)) {
  return estimate ? text(estimate->value) : "";
}

std::string IntervalText(const Estimate& estimate, std::string (*text)(double)) {
  return "[" + text(estimate.low) + ", " + text(estimate.high) + "]";
}

}  // namespace kvasir
