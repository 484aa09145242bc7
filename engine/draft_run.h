// DraftRun: an answer is drafted by another request, over a cheaper prompt that stands for the same
// text (chunk KV), while its own prompt is computed.
//
//   draft run   answers almost at once, beside short slices of the exact run's prompt; internal
//   exact run   the request itself. With its first token the draft run is cancelled and what it has
//               drafted becomes guesses (RelayDrafter), all verified in the next step; from then on
//               the exact run is alone, with its own drafters: level with it, a second run that
//               makes as many tokens a step has nothing more to tell
//
// The exact run's answer is what it would be without: a draft run that is refused, fails or is
// wrong costs rows. Neither outlives the other's end. Both have the same sampling, so that a draw
// falls on the same token wherever the two distributions allow.
//
// Thread-safe. One object an exact run; the engine must outlive its callbacks. Held by the two
// requests' sinks until they have ended.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/engine.h"

namespace kvasir {

struct DraftRunReport {
  Status status;        // not ok: why there was no draft run, or how it failed
  int64_t drafted = 0;  // tokens before the exact run's first one
  int64_t stood = 0;    // how many of them, from the first, the answer has too
  // Since `begin`; below 0 = not yet.
  double first_draft_ms = -1, first_token_ms = -1;
};

class DraftRun : public std::enable_shared_from_this<DraftRun> {
 public:
  // Prompt rows a step beside a draft run. Short slices cost more than the tokens drafted beside
  // them save, but where the draft is read at once it shall be fluent: a step of 64 rows takes the
  // time of about five answer tokens.
  static constexpr int32_t kRowsBeside = 256, kRowsBesideRead = 64;
  static constexpr int32_t kMostTokens = 256;

  // `on_token` is called on the engine's thread with every drafted token; empty: nobody reads it.
  explicit DraftRun(std::chrono::steady_clock::time_point begin,
                    std::function<void(int32_t token)> on_token = nullptr)
      : begin_(begin), on_token_(std::move(on_token)) {}

  // Submits the draft run over `prompt` and connects `exact`, which is to be submitted next: if
  // that is refused, call Stop. kResourceExhausted: the pool can never hold both; whatever else
  // goes wrong is in the report too, and `exact` is alone.
  Status Begin(Engine& engine, const PromptPlan& prompt, Request* exact);
  // Cancels the draft run if it still runs.
  void Stop();
  DraftRunReport report() const;

 private:
  Status Submit(const PromptPlan& prompt, const Request& exact);
  void OnDraft(const TokenEvent& event);
  void OnExact(const TokenEvent& event);
  std::unique_ptr<Drafter> MakeDrafter() const;
  double Elapsed() const;

  const std::chrono::steady_clock::time_point begin_;
  const std::function<void(int32_t token)> on_token_;
  Engine* engine_ = nullptr;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  RequestId id_ = 0;
  bool running_ = false;  // submitted, and neither ended nor cancelled
  bool over_ = false;     // takes no more drafts
  std::vector<int32_t> drafted_;
  int64_t answered_ = 0;  // by the exact run
  DraftRunReport report_;
};

}  // namespace kvasir
