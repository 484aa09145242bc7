#include "service/blocking_answer.h"

#include <condition_variable>
#include <deque>
#include <mutex>

#include "service/answer_text.h"

namespace kvasir {
namespace {

// Events of one request on their way from the engine's thread to the caller's.
struct Mailbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<TokenEvent> events;
  std::chrono::steady_clock::time_point first_token{};

  void Put(const TokenEvent& event) {
    std::lock_guard lock(mutex);
    const bool first = event.token >= 0 && first_token.time_since_epoch().count() == 0;
    if (first) first_token = std::chrono::steady_clock::now();
    events.push_back(event);
    changed.notify_one();
  }
  TokenEvent Take() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return !events.empty(); });
    TokenEvent event = std::move(events.front());
    events.pop_front();
    return event;
  }
};

}  // namespace

Result<BlockingAnswer> AnswerBlocking(Runtime& runtime, RagPipeline& rag,
                                      const PreparedPrompt& prompt, const SamplingParams& sampling,
                                      int32_t max_tokens,
                                      const std::function<void(const std::string&)>& show,
                                      bool ignore_eos) {
  auto mailbox = std::make_shared<Mailbox>();
  KVASIR_RETURN_IF_ERROR(rag.Submit(
                                prompt, sampling, max_tokens,
                                [mailbox](const TokenEvent& event) { mailbox->Put(event); },
                                ignore_eos)
                             .status());
  AnswerText text(runtime.tokenizer(), {});
  while (!text.finished()) {
    const std::string piece = text.Push(mailbox->Take());
    if (show && !piece.empty()) show(piece);
  }
  if (text.finish() == FinishReason::kError || text.finish() == FinishReason::kCancelled) {
    return text.status().ok() ? Cancelled("the engine stopped") : text.status();
  }
  BlockingAnswer answer{text.text(), text.tokens(), 0, text.timing(), text.lost()};
  answer.ttft_ms =
      std::chrono::duration<double, std::milli>(mailbox->first_token - prompt.begin).count();
  return answer;
}

}  // namespace kvasir
