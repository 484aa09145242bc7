#include "service/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace kvasir {
namespace {

// Length of the longest proper beginning of `stop` that ends `text`.
size_t PartialMatch(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.substr(text.size() - length) == stop.substr(0, length)) return length;
  }
  return 0;
}

}  // namespace

std::string StopMatcher::Push(std::string_view text) {
  if (matched_) return "";
  held_ += text;
  size_t first = std::string::npos;
  size_t partial = 0;
  for (const std::string& stop : stops_) {
    first = std::min(first, held_.find(stop));
    partial = std::max(partial, PartialMatch(held_, stop));
  }
  matched_ = first != std::string::npos;
  const size_t shown = matched_ ? first : held_.size() - partial;
  std::string out = held_.substr(0, shown);
  held_ = matched_ ? "" : held_.substr(shown);
  return out;
}

std::string StopMatcher::Finish() { return std::exchange(held_, ""); }

}  // namespace kvasir
