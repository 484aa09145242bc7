// Answers of several modes to several questions, as one table of at most 150 columns.
#pragma once

#include <string>
#include <vector>

#include "service/cli/asker.h"

namespace kvasir {

// One entry a question, with its answers in the order of the modes; "times faster" is against the
// first. Below the table: the mean time to first token of each mode.
std::string FormatAnswers(const std::vector<std::vector<AskAnswer>>& questions);

}  // namespace kvasir
