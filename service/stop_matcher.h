// StopMatcher: finds stop strings in text that arrives in pieces, across the pieces' borders.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

// Not thread-safe. Holds back at most (longest stop string - 1) bytes.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // The text that may be shown now: nothing of a stop string, nor of what may become one.
  std::string Push(std::string_view text);
  // What was held back, at the end of the answer; "" once a stop string was found.
  std::string Finish();
  bool matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace kvasir
