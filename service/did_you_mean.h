// The nearest known name to a mistyped one, for error messages.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

// Insertions, deletions and substitutions that turn `a` into `b`.
int EditDistance(std::string_view a, std::string_view b);

// "; did you mean 'x'?" if a known name is near enough (a third of its length), else "".
std::string DidYouMean(std::string_view name, const std::vector<std::string>& known);

}  // namespace kvasir
