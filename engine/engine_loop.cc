// The engine's thread: collect, schedule, compute, sample, tell.
#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "engine/engine_impl.h"
#include "engine/load_wait.h"

namespace kvasir {
namespace {

using Milliseconds = std::chrono::duration<double, std::milli>;

constexpr std::chrono::milliseconds kRoomPoll{2};
constexpr std::chrono::microseconds kLoadPoll{200};

}  // namespace

void EngineImpl::Loop() {
  while (Collect()) Step();
  CancelAll();
}

bool EngineImpl::Collect() {
  std::vector<Arrival> arrivals;
  std::vector<RequestId> cancels;
  {
    std::unique_lock lock(mutex_);
    work_.wait(lock, [this] {
      const bool idle = scheduler_.waiting().empty() && scheduler_.running().empty();
      return stopping_ || !idle || !inbox_.empty() || !cancels_.empty();
    });
    if (stopping_) return false;
    arrivals.swap(inbox_);
    cancels.swap(cancels_);
    stats_.waiting += static_cast<int32_t>(arrivals.size());
  }
  Enqueue(&arrivals);
  CancelRequests(cancels);
  return true;
}

void EngineImpl::Enqueue(std::vector<Arrival>* arrivals) {
  for (Arrival& arrival : *arrivals) {
    progress_[arrival.sequence->id()].submitted = arrival.submitted;
    scheduler_.Enqueue(std::move(arrival.sequence));
  }
}

void EngineImpl::CancelRequests(const std::vector<RequestId>& ids) {
  for (const RequestId id : ids) {
    if (progress_.contains(id)) {
      Finish(id, FinishReason::kCancelled, Cancelled("the request was cancelled"));
    }
  }
}

void EngineImpl::Step() {
  drafting_.Propose(scheduler_.running());
  const StepPlan plan = scheduler_.Schedule();
  PublishCounts();
  if (plan.loading && plan.empty()) return WaitForLoads();
  if (plan.stalled) return WaitForRoom();
  stalled_since_ = {};
  if (plan.empty()) return;
  const Clock::time_point now = Clock::now();
  for (const Sequence* sequence : plan.sequences) {
    Progress& progress = progress_[sequence->id()];
    if (progress.first_step == Clock::time_point{}) progress.first_step = now;
  }
  const bool decodes_only = std::all_of(plan.sequences.begin(), plan.sequences.end(),
                                        [](const Sequence* s) { return s->prefill_done(); });
  const bool probes = plan.has_probe();  // sequences may be gone behind the step
  runner_.Run(
      plan, [&] { scheduler_.Complete(plan); },
      [this](Sequence& sequence, const Status& status, const StepOutput& output) {
        Handle(sequence, status, output);
      });
  const std::chrono::duration<double> taken = Clock::now() - now;
  if (decodes_only) drafting_.RecordStep(plan.batch.rows(), taken.count());
  const std::lock_guard lock(mutex_);
  ++stats_.steps;
  stats_.rows += static_cast<uint64_t>(plan.batch.rows());
  if (plan.batch.rows() < kPrefillRows || probes || plan.awaiting) return;
  stats_.prefill_rows += static_cast<uint64_t>(plan.batch.rows());
  stats_.prefill_seconds += taken.count();
}

// Blocks come back from other threads without a word to this one, so look again soon.
void EngineImpl::WaitForRoom() {
  const Clock::time_point now = Clock::now();
  if (stalled_since_ == Clock::time_point{}) stalled_since_ = now;
  if (now - stalled_since_ >= std::chrono::milliseconds(options_.stall_ms)) {
    stalled_since_ = {};
    // Rather one that has said nothing yet than one that was preempted amid its answer.
    const auto& waiting = scheduler_.waiting();
    const auto silent = std::find_if(waiting.begin(), waiting.end(), [](const auto& sequence) {
      return sequence->answered() == 0;
    });
    const Sequence& first = silent != waiting.end() ? **silent : *waiting.front();
    Finish(first.id(), FinishReason::kError,
           ResourceExhausted("the request needs " + std::to_string(first.BlocksNeeded()) +
                             " blocks of its own; " + std::to_string(blocks_.free()) + " of " +
                             std::to_string(blocks_.total()) +
                             " are free and cached chunks hold the rest; try again later"));
    return;
  }
  std::unique_lock lock(mutex_);
  work_.wait_for(lock, kRoomPoll,
                 [this] { return stopping_ || !inbox_.empty() || !cancels_.empty(); });
}

// Loaders do not know this thread: it looks again soon.
void EngineImpl::WaitForLoads() {
  std::unique_lock lock(mutex_);
  work_.wait_for(lock, kLoadPoll,
                 [this] { return stopping_ || !inbox_.empty() || !cancels_.empty(); });
}

// Begins the request anew without the blocks that could not be loaded. False: it had none.
bool EngineImpl::Recompute(Sequence& sequence) {
  if (sequence.answered() > 0 || IsComplete(sequence.request().prompt)) return false;
  const RequestId id = sequence.id();
  Request request = std::move(scheduler_.Remove(id)->request());
  progress_[id].lost = DropIncomplete(&request.prompt);
  auto anew = std::make_unique<Sequence>(id, std::move(request), max_context_);
  Status fits = CheckFits(*anew);
  scheduler_.Enqueue(std::move(anew));
  if (!fits.ok()) Finish(id, FinishReason::kError, std::move(fits));
  const std::lock_guard lock(mutex_);
  ++stats_.loads_lost;
  return true;
}

// A request's callbacks may throw: that ends this request and no other.
void EngineImpl::Handle(Sequence& sequence, const Status& status, const StepOutput& output) {
  FinishReason finish = FinishReason::kNone;
  Status outcome = status;
  if (!outcome.ok()) {
    if (Status failed = health(); !failed.ok()) {
      outcome = std::move(failed);
    } else if (Recompute(sequence)) {
      return;
    }
  }
  if (outcome.ok()) {
    try {
      outcome = HandleRows(sequence, output, &finish);
    } catch (const std::exception& error) {
      outcome = Internal(std::string("a callback of the request failed: ") + error.what());
    } catch (...) {
      outcome = Internal("a callback of the request failed");
    }
  }
  if (!outcome.ok()) finish = FinishReason::kError;
  if (finish != FinishReason::kNone) Finish(sequence.id(), finish, std::move(outcome));
}

Status EngineImpl::HandleRows(Sequence& sequence, const StepOutput& output, FinishReason* finish) {
  if (!sequence.prefill_done()) return Status::Ok();
  if (sequence.answered() == 0) {
    OfferPrefix(sequence);
    OfferSegments(sequence);
  }
  if (sequence.max_tokens() == 0) {
    *finish = FinishReason::kLength;
    return Status::Ok();
  }
  return Continue(sequence, output, finish);
}

// Row by row: each token is drawn as if it had been computed alone, and the next row counts if it
// was computed for that very token.
Status EngineImpl::Continue(Sequence& sequence, const StepOutput& output, FinishReason* finish) {
  const auto vocab = static_cast<size_t>(model_->config.vocab);
  const bool drawn = !output.tokens.empty();
  const size_t rows = drawn ? output.tokens.size() : output.logits.size() / vocab;
  const std::vector<int32_t> drafts = sequence.drafts();
  size_t accepted = 0;
  for (size_t row = 0; row < rows; ++row) {
    if (row > 0 && sequence.last_token() != drafts[row - 1]) break;
    accepted = row;
    MarkToken(sequence);
    KVASIR_RETURN_IF_ERROR(
        drawn ? TakeDrawn(sequence, output.tokens[row], finish)
              : DrawRow(sequence, output.logits.subspan(row * vocab, vocab), finish));
    if (*finish != FinishReason::kNone) break;
  }
  sequence.ClearDrafts();
  if (drafts.empty()) return Status::Ok();
  const DraftSource source = drafting_.Verified(sequence.id(), static_cast<int32_t>(drafts.size()),
                                                static_cast<int32_t>(accepted));
  const std::lock_guard lock(mutex_);
  stats_.tokens_drafted += drafts.size();
  stats_.drafts_accepted += accepted;
  stats_.drafts[size_t(source)].drafted += int64_t(drafts.size());
  stats_.drafts[size_t(source)].accepted += int64_t(accepted);
  return Status::Ok();
}

void EngineImpl::MarkToken(const Sequence& sequence) {
  Progress& progress = progress_[sequence.id()];
  progress.last_token = Clock::now();
  if (progress.first_token == Clock::time_point{}) progress.first_token = progress.last_token;
}

Status EngineImpl::TakeDrawn(Sequence& sequence, int32_t token, FinishReason* finish) {
  if (token < 0) return BadLogits();
  Sample sample;
  sample.token = token;
  Answer(sequence, std::move(sample), finish);
  return Status::Ok();
}

Status EngineImpl::DrawRow(Sequence& sequence, std::span<const float> logits,
                           FinishReason* finish) {
  const Request& request = sequence.request();
  if (request.on_logits) {
    logits_copy_.assign(logits.begin(), logits.end());
    request.on_logits(logits_copy_);
  }
  if (!request.forced.empty()) {
    if (sequence.answered() == 0) sequence.start_logits().assign(logits.begin(), logits.end());
    if (sequence.Force()) return Status::Ok();
    if (request.only_forced) {
      *finish = FinishReason::kLength;
      return Status::Ok();
    }
    sequence.request().forced.clear();
    logits = sequence.start_logits();
  }
  KVASIR_ASSIGN_OR_RETURN(Sample sample,
                          sampler_.Draw(logits, request.sampling, sequence.history(),
                                        static_cast<uint64_t>(sequence.next_position())));
  Answer(sequence, std::move(sample), finish);
  return Status::Ok();
}

// The token is the answer's next, unless it ends it.
void EngineImpl::Answer(Sequence& sequence, Sample sample, FinishReason* finish) {
  const Request& request = sequence.request();
  const std::vector<int32_t>& stops = request.stop_ids;
  if (!request.ignore_eos && std::find(stops.begin(), stops.end(), sample.token) != stops.end()) {
    *finish = FinishReason::kStop;
    return;
  }
  sequence.Answer(sample.token);
  drafting_.Answered(sequence.id(), sample.token);
  {
    const std::lock_guard lock(mutex_);
    ++stats_.tokens_generated;
  }
  TokenEvent event;
  event.token = sample.token;
  event.logprob = sample.logprob;
  event.top = std::move(sample.top);
  if (request.sink) request.sink(event);
  if (sequence.answered() == sequence.max_tokens()) *finish = FinishReason::kLength;
}

void EngineImpl::OfferPrefix(Sequence& sequence) {
  if (!sequence.request().on_prefix) return;
  std::vector<int32_t> ids = sequence.ExactPrefixBlocks();
  if (ids.empty()) return;
  const auto tokens = static_cast<int32_t>(ids.size()) * kBlockTokens;
  sequence.request().on_prefix(blocks_.Share(std::move(ids), tokens));
}

void EngineImpl::OfferSegments(Sequence& sequence) {
  if (!sequence.request().on_segments) return;
  std::vector<std::shared_ptr<const KvBlocks>> segments;
  for (std::vector<int32_t>& ids : sequence.SegmentBlocks()) {
    const int32_t tokens = sequence.SegmentTokens(segments.size());
    segments.push_back(blocks_.Share(std::move(ids), tokens));
  }
  segments.push_back(nullptr);
  sequence.request().on_segments(std::move(segments));
}

RequestTiming EngineImpl::TimingOf(const Progress& progress) const {
  const Clock::time_point none{}, now = Clock::now();
  const auto at = [&](Clock::time_point time) { return time == none ? now : time; };
  const auto between = [](Clock::time_point from, Clock::time_point to) {
    return Milliseconds(to - from).count();
  };
  RequestTiming timing;
  timing.queued_ms = between(progress.submitted, at(progress.first_step));
  if (progress.first_step == none) return timing;
  timing.prefill_ms = between(progress.first_step, at(progress.first_token));
  if (progress.first_token == none) return timing;
  timing.decode_ms = between(progress.first_token, at(progress.last_token));
  return timing;
}

// Everything the request holds goes back before anybody hears that it has ended.
void EngineImpl::Finish(RequestId id, FinishReason reason, Status status) {
  TokenEvent event;
  event.finish = reason;
  event.status = std::move(status);
  event.timing = TimingOf(progress_[id]);
  event.lost = progress_[id].lost;
  event.drafts = drafting_.End(id);
  progress_.erase(id);
  std::unique_ptr<Sequence> sequence = scheduler_.Remove(id);
  KVASIR_CHECK(sequence != nullptr);
  const auto sink = std::move(sequence->request().sink);
  sequence.reset();
  {
    const std::lock_guard lock(mutex_);
    ++stats_.requests_finished;
    stats_.drafters_dropped = drafting_.dropped();
    stats_.longest_queued_ms = std::max(stats_.longest_queued_ms, event.timing.queued_ms);
    --in_system_;
  }
  PublishCounts();
  if (!sink) return;
  try {
    sink(event);
  } catch (...) {  // The request is over already; there is nobody left to tell.
  }
}

void EngineImpl::PublishCounts() {
  const std::lock_guard lock(mutex_);
  stats_.running = static_cast<int32_t>(scheduler_.running().size());
  stats_.waiting = static_cast<int32_t>(scheduler_.waiting().size());
  stats_.preemptions = scheduler_.preemptions();
}

void EngineImpl::CancelAll() {
  std::vector<Arrival> arrivals;
  {
    const std::lock_guard lock(mutex_);
    arrivals.swap(inbox_);
  }
  Enqueue(&arrivals);
  std::vector<RequestId> ids;
  for (const auto& [id, progress] : progress_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const RequestId id : ids) {
    Finish(id, FinishReason::kCancelled, Cancelled("the engine is shutting down"));
  }
}

}  // namespace kvasir
