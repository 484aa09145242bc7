// ProvisionalText: the drafted text of one answer that a client has been sent before it was
// verified, and how much of it stands once the verified text is there.
//
// Not thread-safe; no sockets, no clocks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "service/answer_text.h"

namespace kvasir {

class ProvisionalText {
 public:
  ProvisionalText(const Tokenizer& tokenizer, std::vector<std::string> stops)
      : text_(tokenizer, std::move(stops)) {}

  // Text to send now: cut at stop strings as the answer is.
  std::string Push(int32_t token);

  // `verified` is the answer's text so far, `ended` says that no more of it will come. Once the two
  // contradict each other: how many characters (Unicode code points) of what was sent stand; at
  // most once.
  std::optional<int64_t> Verify(std::string_view verified, bool ended);

 private:
  AnswerText text_;
  bool settled_ = false;  // nothing more can come out
};

}  // namespace kvasir
