#include "service/answer_text.h"

namespace kvasir {

std::string AnswerText::Push(const TokenEvent& event) {
  if (finished()) return "";
  if (event.token < 0) return End(event);
  if (stop_matcher_.matched()) return "";  // on its way to being cancelled
  ++tokens_;
  if (event.logprob.id >= 0) logprobs_.push_back({event.logprob, event.top});
  std::string ready = stop_matcher_.Push(characters_.Push(tokenizer_->TokenBytes(event.token)));
  text_ += ready;
  return ready;
}

std::string AnswerText::End(const TokenEvent& event) {
  if (event.finish == FinishReason::kNone) return "";
  std::string ready;
  if (!stop_matcher_.matched()) {
    ready = stop_matcher_.Push(characters_.Finish());
    ready += stop_matcher_.Finish();
  }
  finish_ = stop_matcher_.matched() ? FinishReason::kStop : event.finish;
  if (!stop_matcher_.matched()) status_ = event.status;
  timing_ = event.timing;
  lost_ = event.lost;
  drafts_ = event.drafts;
  text_ += ready;
  return ready;
}

}  // namespace kvasir
