// AnswerText: one answer as it grows: token events in, characters ready to be shown out.
//
// Joins UTF-8 characters that span tokens, cuts at stop strings, keeps logprobs beside the text.
// Not thread-safe; no sockets, no clocks.
#pragma once

#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/tokenizer/tokenizer.h"
#include "service/stop_matcher.h"

namespace kvasir {

struct ShownToken {
  TokenLogprob token;
  std::vector<TokenLogprob> top;
};

class AnswerText {
 public:
  AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops)
      : tokenizer_(&tokenizer), stop_matcher_(std::move(stops)) {}

  // Text that became ready with this event. Events after the end are ignored.
  std::string Push(const TokenEvent& event);

  const std::string& text() const { return text_; }
  int64_t tokens() const { return tokens_; }
  bool finished() const { return finish_ != FinishReason::kNone; }
  // A stop string was found although the engine goes on: cancel the request.
  bool wants_cancel() const { return stop_matcher_.matched(); }
  FinishReason finish() const { return finish_; }
  const Status& status() const { return status_; }
  const RequestTiming& timing() const { return timing_; }
  const LostRows& lost() const { return lost_; }
  const DraftCounts& drafts() const { return drafts_; }
  // Logprobs of tokens since the last call.
  std::vector<ShownToken> TakeLogprobs() { return std::exchange(logprobs_, {}); }

 private:
  std::string End(const TokenEvent& event);

  const Tokenizer* tokenizer_;
  Utf8Assembler characters_;
  StopMatcher stop_matcher_;
  std::string text_;
  int64_t tokens_ = 0;
  FinishReason finish_ = FinishReason::kNone;
  Status status_;
  RequestTiming timing_;
  LostRows lost_;
  DraftCounts drafts_;
  std::vector<ShownToken> logprobs_;
};

}  // namespace kvasir
