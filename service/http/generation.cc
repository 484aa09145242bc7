#include "service/http/generation.h"

#include <algorithm>

#include "service/elapsed.h"
#include "service/http/sse.h"
#include "service/random_id.h"

namespace kvasir {
namespace {

int64_t UnixSeconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

ApiResult<std::shared_ptr<Generation>> Generation::Start(ServiceContext& service,
                                                         GenerationRequest request,
                                                         std::function<void()> wake) {
  std::shared_ptr<Generation> run(new Generation(service, std::move(request), std::move(wake)));
  const Result<PreparedPrompt> prompt = service.rag.Prepare(run->request_.rag);
  if (!prompt.ok()) return FromStatus(prompt.status());
  run->begin_ = prompt->begin;
  run->context_.chat = run->request_.chat;
  run->context_.id = (run->request_.chat ? "chatcmpl-" : "cmpl-") + RandomHex(24);
  run->context_.created = UnixSeconds();
  run->context_.model = service.runtime.model_name();
  run->context_.tokenizer = &service.runtime.tokenizer();
  run->context_.cache = prompt->report;
  run->context_.explain = run->request_.rag.cache.explain;
  run->context_.logprobs = run->request_.logprobs;
  if (run->request_.echo) {
    for (const SegmentPlan& segment : prompt->plan.segments) {
      run->echo_ += service.runtime.tokenizer().Decode(segment.token_ids);
    }
  }
  const Status submitted = run->SubmitAll(*prompt);
  if (!submitted.ok()) {
    run->Cancel();
    return FromStatus(submitted);
  }
  return run;
}

Status Generation::SubmitAll(const PreparedPrompt& prompt) {
  const auto count = static_cast<size_t>(request_.n);
  for (size_t i = 0; i < count; ++i) {
    answers_.emplace_back(service_.runtime.tokenizer(), request_.stop);
    provisional_.emplace_back(service_.runtime.tokenizer(), request_.stop);
    if (prompt.draft != nullptr) draft_runs_.push_back(MakeDraftRun(i));
  }
  opened_.assign(count, false);
  ended_.assign(count, false);
  if (!request_.seed_given) request_.sampling.seed = RandomSeed();
  for (size_t i = 0; i < count; ++i) {
    SamplingParams sampling = request_.sampling;
    sampling.seed += i;
    auto sink = [self = shared_from_this(), i](const TokenEvent& event) {
      self->OnEvent(i, event);
    };
    const Result<RequestId> id =
        service_.rag.Submit(prompt, sampling, request_.max_tokens, std::move(sink),
                            /*ignore_eos=*/false, draft_runs_.empty() ? nullptr : draft_runs_[i]);
    if (!id.ok()) return id.status();
    ids_.push_back(*id);
    ++open_;
  }
  return Status::Ok();
}

std::shared_ptr<DraftRun> Generation::MakeDraftRun(size_t choice) {
  std::function<void(int32_t)> on_token;
  if (request_.rag.cache.provisional) {
    on_token = [weak = weak_from_this(), choice](int32_t token) {
      if (const auto self = weak.lock()) self->OnDrafted(choice, token);
    };
  }
  return std::make_shared<DraftRun>(begin_, std::move(on_token));
}

void Generation::OnDrafted(size_t choice, int32_t token) {
  Event event{choice, {}, /*provisional=*/true};
  event.token.token = token;
  {
    std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  wake_();
}

void Generation::OnEvent(size_t choice, const TokenEvent& event) {
  {
    std::lock_guard lock(mutex_);
    if (event.token >= 0 && ttft_ms_ < 0) ttft_ms_ = MillisecondsSince(begin_);
    events_.push_back({choice, event, /*provisional=*/false});
  }
  wake_();
}

DraftUsage Generation::DraftsUsage() const {
  DraftUsage usage;
  for (const auto& run : draft_runs_) {
    const DraftRunReport report = run->report();
    usage.drafted += report.drafted;
    usage.stood += report.stood;
    const bool first = report.first_draft_ms >= 0 &&
                       (usage.first_ms < 0 || report.first_draft_ms < usage.first_ms);
    if (first) usage.first_ms = report.first_draft_ms;
    if (!report.status.ok()) usage.problem = report.status.message();
  }
  return usage;
}

ReplyUsage Generation::Usage() const {
  ReplyUsage usage;
  usage.draft = DraftsUsage();
  for (const AnswerText& answer : answers_) {
    usage.completion_tokens += answer.tokens();
    usage.drafts.drafted += answer.drafts().drafted;
    usage.drafts.accepted += answer.drafts().accepted;
  }
  if (!answers_.empty()) usage.timing = answers_.front().timing();
  std::lock_guard lock(mutex_);
  usage.ttft_ms = std::max(ttft_ms_, 0.0);
  return usage;
}

std::string Generation::EndChoice(size_t choice) {
  ended_[choice] = true;
  --open_;
  const AnswerText& answer = answers_[choice];
  if (choice == 0) MoveLost(answer.lost(), &context_.cache.account);
  if (!request_.stream || cancelled_) return "";
  if (answer.finish() == FinishReason::kError || answer.finish() == FinishReason::kCancelled) {
    failed_ = true;
    const Status why =
        answer.status().ok() ? Unavailable("the request was cancelled") : answer.status();
    return SseEvent(ErrorBody(FromStatus(why)));
  }
  const bool last = open_ == 0;
  const ReplyUsage usage = Usage();
  const bool usage_here = last && !request_.include_usage;
  std::string bytes = SseEvent(FinishChunk(context_, static_cast<int32_t>(choice), answer.finish(),
                                           usage_here ? &usage : nullptr));
  if (last && request_.include_usage) bytes += SseEvent(UsageChunk(context_, usage));
  if (last && !failed_) bytes += kSseDone;
  return bytes;
}

std::string Generation::Open(size_t choice) {
  if (opened_[choice]) return "";
  opened_[choice] = true;
  const auto index = static_cast<int32_t>(choice);
  std::string bytes;
  if (context_.chat) bytes += SseEvent(OpeningChunk(context_, index));
  if (!echo_.empty()) bytes += SseEvent(TextChunk(context_, index, echo_, {}));
  return bytes;
}

std::string Generation::HandleProvisional(const Event& event) {
  const std::string text = provisional_[event.choice].Push(event.token.token);
  if (text.empty() || cancelled_) return "";
  std::string bytes = Open(event.choice);
  bytes += SseEvent(ProvisionalChunk(context_, static_cast<int32_t>(event.choice), text));
  return bytes;
}

std::string Generation::Correct(size_t choice) {
  const AnswerText& answer = answers_[choice];
  const std::optional<int64_t> stands =
      provisional_[choice].Verify(answer.text(), answer.finished());
  return stands ? SseEvent(CorrectionChunk(context_, static_cast<int32_t>(choice), *stands)) : "";
}

std::string Generation::Handle(const Event& event) {
  if (ended_[event.choice]) return "";
  if (event.provisional) return HandleProvisional(event);
  AnswerText& answer = answers_[event.choice];
  const auto index = static_cast<int32_t>(event.choice);
  const bool wanted_cancel = answer.wants_cancel();
  const std::string text = answer.Push(event.token);
  if (answer.wants_cancel() && !wanted_cancel) {
    service_.runtime.engine().Cancel(ids_[event.choice]);
  }
  std::string bytes;
  if (request_.stream && !cancelled_) {
    bytes += Open(event.choice);
    bytes += Correct(event.choice);
    if (!text.empty()) {
      bytes += SseEvent(TextChunk(context_, index, text, answer.TakeLogprobs()));
    }
  }
  if (answer.finished()) bytes += EndChoice(event.choice);
  return bytes;
}

std::string Generation::Drain() {
  std::vector<Event> events;
  {
    std::lock_guard lock(mutex_);
    events.swap(events_);
  }
  std::string bytes;
  for (const Event& event : events) bytes += Handle(event);
  if (finished()) CountOnce();
  return bytes;
}

void Generation::CountOnce() {
  if (counted_ || cancelled_) return;
  counted_ = true;
  service_.metrics.CountAnswer(Usage().ttft_ms / 1000, MillisecondsSince(begin_) / 1000);
  if (!context_.cache.draft) return;
  if (draft_runs_.empty()) service_.metrics.CountOptimistic({}, request_.n);
  for (const auto& run : draft_runs_) service_.metrics.CountOptimistic(run->report());
}

HttpReply Generation::Reply() {
  for (const AnswerText& answer : answers_) {
    if (answer.finish() != FinishReason::kError && answer.finish() != FinishReason::kCancelled) {
      continue;
    }
    return ErrorReply(FromStatus(answer.status().ok() ? Unavailable("the request was cancelled")
                                                      : answer.status()));
  }
  std::vector<AnswerText*> answers;
  for (AnswerText& answer : answers_) answers.push_back(&answer);
  HttpReply reply;
  reply.body = WholeReply(context_, answers, echo_, Usage());
  return reply;
}

void Generation::Cancel() {
  cancelled_ = true;
  service_.metrics.CountCancelled();
  for (size_t i = 0; i < ids_.size(); ++i) {
    if (!ended_[i]) service_.runtime.engine().Cancel(ids_[i]);
  }
}

}  // namespace kvasir
