// RagPipeline::Submit: a prepared prompt to the engine, with what drafts its answer.
#include <algorithm>
#include <utility>

#include "engine/answer_drafter.h"
#include "service/rag_pipeline.h"

namespace kvasir {
namespace {

constexpr int32_t kDefaultMaxTokens = 512;

}  // namespace

// Drafts from past answers, and the answer to them if it ends of itself.
void RagPipeline::ConnectAnswers(const PreparedPrompt& prompt, Request* request) const {
  if (prompt.past_answers == nullptr || !request->speculate) return;
  request->drafter = [shelf = prompt.past_answers] {
    return std::make_unique<AnswerDrafter>([shelf] { return shelf->index(); });
  };
  if (!prompt.keep_answer) return;
  request->sink = [store = runtime_.answers(), shelf = prompt.past_answers,
                   tokens = std::make_shared<std::vector<int32_t>>(),
                   sink = std::move(request->sink)](const TokenEvent& event) {
    if (event.token >= 0) tokens->push_back(event.token);
    const bool ended = event.finish == FinishReason::kStop || event.finish == FinishReason::kLength;
    if (ended) store->Add(shelf, std::move(*tokens));
    if (sink) sink(event);
  };
}

Result<RequestId> RagPipeline::Submit(const PreparedPrompt& prompt, const SamplingParams& sampling,
                                      int32_t max_tokens,
                                      std::function<void(const TokenEvent&)> sink, bool ignore_eos,
                                      std::shared_ptr<DraftRun> draft_run) {
  Request request;
  request.prompt = prompt.plan;
  request.sampling = sampling;
  const auto room = static_cast<int32_t>(
      std::max<int64_t>(1, runtime_.engine().max_context() - PositionsOf(prompt.plan)));
  request.max_tokens = max_tokens > 0 ? max_tokens : std::min(room, kDefaultMaxTokens);
  request.stop_ids = runtime_.chat_template().stop_ids();
  request.ignore_eos = ignore_eos;
  request.speculate = !ignore_eos;  // benchmarks measure one token a step
  request.sink = std::move(sink);
  ConnectAnswers(prompt, &request);
  if (prompt.publish_prefix) {
    PrefixIndex* index = &runtime_.prefix_index();
    request.on_prefix = [index, name_space = prompt.name_space,
                         plan = prompt.plan](std::shared_ptr<const KvBlocks> blocks) {
      // A plan that is not exact is refused there; a prefix is never needed for correctness.
      [[maybe_unused]] const Status inserted = index->InsertPrompt(name_space, plan, blocks);
    };
  }
  if (prompt.draft == nullptr || prompt.draft->segments.empty()) {
    return runtime_.engine().Submit(std::move(request));
  }
  if (draft_run == nullptr) draft_run = std::make_shared<DraftRun>(prompt.begin);
  const Status begun = draft_run->Begin(runtime_.engine(), *prompt.draft, &request);
  // Its chunks would keep the pool from the answer.
  if (begun.code() == StatusCode::kResourceExhausted) *prompt.draft = {};
  Result<RequestId> id = runtime_.engine().Submit(std::move(request));
  if (!id.ok()) draft_run->Stop();
  return id;
}

}  // namespace kvasir
