// The style sheet of the HTML report: colours of light and dark screens (Okabe and Ito's palette,
// told apart by the colour-blind, darkened and lightened for contrast), plots, table.
#pragma once

#include <string_view>

namespace kvasir {

extern const std::string_view kReportStyle;

}  // namespace kvasir
