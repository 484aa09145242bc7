#include "engine/draft_run.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/combined_drafter.h"
#include "engine/relay_drafter.h"

namespace kvasir {
namespace {

Request DraftOf(const Request& exact, const PromptPlan& prompt) {
  Request draft;
  draft.prompt = prompt;
  draft.sampling = exact.sampling;
  draft.sampling.logprobs = -1;
  draft.max_tokens = std::min(exact.max_tokens, DraftRun::kMostTokens);
  draft.stop_ids = exact.stop_ids;
  draft.ignore_eos = exact.ignore_eos;
  draft.drafter = exact.drafter;
  return draft;
}

// Blocks at most, shared ones included.
int64_t BlocksOf(const PromptPlan& prompt, int32_t max_tokens) {
  int64_t blocks = BlocksFor(max_tokens) + 1;
  for (const SegmentPlan& segment : prompt.segments) blocks += BlocksFor(segment.tokens());
  return blocks;
}

}  // namespace

double DraftRun::Elapsed() const {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin_)
      .count();
}

Status DraftRun::Submit(const PromptPlan& prompt, const Request& exact) {
  if (engine_->options().draft_tokens == 0 || !exact.speculate) {
    return FailedPrecondition("nothing is drafted: speculation is off");
  }
  Request draft = DraftOf(exact, prompt);
  draft.rows_beside = on_token_ ? kRowsBesideRead : kRowsBeside;
  // The exact run must have its place whatever the draft run holds.
  const int64_t need =
      BlocksOf(exact.prompt, exact.max_tokens) + 2 * BlocksOf(draft.prompt, draft.max_tokens);
  const int32_t total = engine_->stats().blocks_total;
  if (need > total) {
    return ResourceExhausted("the answer and its draft may need " + std::to_string(need) +
                             " blocks; the pool has " + std::to_string(total));
  }
  draft.sink = [self = shared_from_this()](const TokenEvent& event) { self->OnDraft(event); };
  {
    const std::lock_guard lock(mutex_);
    running_ = true;  // before its events come
  }
  KVASIR_ASSIGN_OR_RETURN(const RequestId id, engine_->Submit(std::move(draft)));
  const std::lock_guard lock(mutex_);
  id_ = id;
  return Status::Ok();
}

Status DraftRun::Begin(Engine& engine, const PromptPlan& prompt, Request* exact) {
  engine_ = &engine;
  const Status status = Submit(prompt, *exact);
  if (!status.ok()) {
    const std::lock_guard lock(mutex_);
    report_.status = status;
    running_ = false;
  }
  if (status.ok()) {
    exact->drafter = [self = shared_from_this(), others = std::move(exact->drafter)] {
      auto drafter = std::make_unique<CombinedDrafter>();
      drafter->Add(self->MakeDrafter());
      if (others) drafter->Add(others());
      return drafter;
    };
  }
  exact->sink = [self = shared_from_this(),
                 sink = std::move(exact->sink)](const TokenEvent& event) {
    self->OnExact(event);
    if (sink) sink(event);
  };
  return status;
}

void DraftRun::Stop() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    if (!std::exchange(running_, false)) return;
  }
  engine_->Cancel(id_);  // no longer written: the draft run was submitted before
}

void DraftRun::OnDraft(const TokenEvent& event) {
  {
    const std::lock_guard lock(mutex_);
    if (event.finish != FinishReason::kNone) {
      if (event.finish == FinishReason::kError) report_.status = event.status;
      running_ = false;
      return;
    }
    if (over_ || event.token < 0) return;
    if (drafted_.empty()) report_.first_draft_ms = Elapsed();
    drafted_.push_back(event.token);
    ++report_.drafted;
  }
  if (on_token_) on_token_(event.token);
}

void DraftRun::OnExact(const TokenEvent& event) {
  {
    const std::lock_guard lock(mutex_);
    if (event.token >= 0) {
      if (answered_ == 0) report_.first_token_ms = Elapsed();
      const bool agreed = report_.stood == answered_ && answered_ < report_.drafted;
      if (agreed && drafted_[static_cast<size_t>(answered_)] == event.token) ++report_.stood;
      ++answered_;
    }
  }
  Stop();
}

std::unique_ptr<Drafter> DraftRun::MakeDrafter() const {
  const std::lock_guard lock(mutex_);
  return std::make_unique<RelayDrafter>(drafted_);
}

DraftRunReport DraftRun::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

}  // namespace kvasir
