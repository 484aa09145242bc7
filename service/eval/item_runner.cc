#include "service/eval/item_runner.h"

#include <algorithm>
#include <utility>

#include "cache/assembler.h"
#include "cache/selector.h"
#include "service/engine_call.h"
#include "service/eval/metrics.h"

namespace kvasir {
namespace {

SegmentPlan Fresh(std::vector<int32_t> token_ids) {
  SegmentPlan segment;
  segment.token_ids = std::move(token_ids);
  return segment;
}

}  // namespace

// Logits of the path's steps, then those of the gold answer's, then the free answer.
struct ItemRunner::Outcome {
  std::vector<std::vector<float>> path, gold;
  std::vector<int32_t> tokens;
  RequestTiming timing;
};

// The gold answer's tokens, as many as are compared.
std::vector<int32_t> ItemRunner::GoldPath(const EvalPrompt& prompt) const {
  if (prompt.gold.empty()) return {};
  std::vector<int32_t> path = prompt.gold.front();
  path.resize(std::min(path.size(), static_cast<size_t>(options_.steps)));
  return path;
}

Result<ItemRunner::Outcome> ItemRunner::Run(const PromptPlan& plan, const EvalPrompt& prompt) {
  Outcome outcome;
  Request request;
  request.prompt = plan;
  request.max_tokens = options_.steps;
  request.stop_ids = runtime_.chat_template().stop_ids();
  const size_t steps = path_.size();
  request.forced.push_back(path_);
  const std::vector<int32_t> gold = GoldPath(prompt);
  if (!gold.empty()) request.forced.push_back(gold);
  request.only_forced = !options_.free_answers;
  request.on_logits = [&](const std::vector<float>& logits) {
    if (outcome.path.size() < steps) {
      outcome.path.push_back(logits);
      if (outcome.path.size() == 1 && !gold.empty()) outcome.gold.push_back(logits);
    } else if (outcome.gold.size() < gold.size()) {
      outcome.gold.push_back(logits);
    }
  };
  KVASIR_ASSIGN_OR_RETURN(FinishedCall call, RunToEnd(runtime_.engine(), std::move(request)));
  outcome.tokens = std::move(call.tokens);
  outcome.timing = call.timing;
  return outcome;
}

void ItemRunner::ReadGold(const Outcome& outcome, const EvalPrompt& prompt,
                          ItemResult* result) const {
  if (outcome.gold.empty()) return;
  double sum = 0;
  for (size_t i = 0; i < outcome.gold.size(); ++i) {
    sum += LogProbability(outcome.gold[i], prompt.gold.front()[i]);
  }
  result->gold_loglik = sum;
}

void ItemRunner::ReadFree(const Outcome& outcome, ItemResult* result) const {
  result->text = runtime_.tokenizer().Decode(outcome.tokens);
  result->first_divergence = FirstDivergence(outcome.tokens, full_tokens_);
  result->free_tokens = static_cast<int64_t>(std::max(outcome.tokens.size(), full_tokens_.size()));
  result->rouge_l = RougeL(result->text, full_text_);
  result->f1_full = TokenF1(result->text, full_text_);
  if (!golds_.empty()) result->f1_gold = BestF1(result->text, golds_);
  result->refused = IsRefusal(result->text);
}

Result<ItemResult> ItemRunner::RunExact(const EvalPrompt& prompt,
                                        const std::vector<std::string>& golds) {
  golds_ = golds;
  path_.clear();
  reference_.clear();
  Request request;
  request.prompt = prompt.Flat();
  request.max_tokens = options_.steps;
  request.stop_ids = runtime_.chat_template().stop_ids();
  // One pass: the gold answer is forced first, then full prefill answers freely.
  Outcome outcome;
  const size_t gold_steps = GoldPath(prompt).size();
  if (gold_steps > 0) request.forced.push_back(GoldPath(prompt));
  request.on_logits = [&](const std::vector<float>& logits) {
    const bool start = reference_.empty();
    if (outcome.gold.size() < gold_steps) {
      outcome.gold.push_back(logits);
      if (!start) return;
    }
    reference_.push_back(logits);
  };
  KVASIR_ASSIGN_OR_RETURN(const FinishedCall call, RunToEnd(runtime_.engine(), std::move(request)));
  full_tokens_ = outcome.tokens = call.tokens;
  full_text_ = runtime_.tokenizer().Decode(full_tokens_);
  for (const std::vector<float>& logits : reference_) path_.push_back(ArgMax(logits));
  ItemResult result;
  result.kl.assign(reference_.size(), 0.0);
  result.top1_matches = static_cast<int64_t>(reference_.size());
  ReadFree(outcome, &result);
  ReadGold(outcome, prompt, &result);
  result.charged = 1;
  result.question_share =
      static_cast<double>(prompt.tail.size()) / static_cast<double>(prompt.tokens());
  result.ttft.lookup_ms = prompt.lookup_ms;
  result.ttft.question_ms = call.timing.prefill_ms;
  result.ttft.total_ms = prompt.lookup_ms + call.timing.prefill_ms;
  return result;
}

Result<ItemResult> ItemRunner::Compare(const PromptPlan& plan, const EvalPrompt& prompt,
                                       const RepairReport& repair, double load_ms) {
  KVASIR_ASSIGN_OR_RETURN(const Outcome outcome, Run(plan, prompt));
  ItemResult result;
  for (size_t step = 0; step < outcome.path.size(); ++step) {
    result.kl.push_back(KlDivergence(reference_[step], outcome.path[step]));
    result.top1_matches += Top1Agrees(reference_[step], outcome.path[step]) ? 1 : 0;
  }
  if (options_.free_answers) ReadFree(outcome, &result);
  ReadGold(outcome, prompt, &result);
  PromptAccount account = AccountOf(plan);
  account.looked = repair.looked_rows;
  result.charged = account.ChargedFraction();
  const double question = static_cast<double>(prompt.tail.size()) * (1 + repair.looks);
  result.question_share = question / static_cast<double>(account.requested);
  const int64_t fused = FusedRows(plan);
  if (fused > 0) {
    result.selected = static_cast<double>(account.recomputed) / static_cast<double>(fused);
  }
  const auto rows = static_cast<double>(plan.rows());
  const double repaired = (rows - static_cast<double>(account.computed)) / std::max(1.0, rows);
  result.ttft.lookup_ms = prompt.lookup_ms;
  result.ttft.load_ms = load_ms;
  result.ttft.repair_ms = repair.ms + outcome.timing.prefill_ms * repaired;
  result.ttft.question_ms = outcome.timing.prefill_ms * (1 - repaired);
  result.ttft.total_ms = prompt.lookup_ms + load_ms + repair.ms + outcome.timing.prefill_ms;
  return result;
}

Result<ItemResult> ItemRunner::RunNoiseFloor(const EvalPrompt& prompt) {
  PromptPlan plan;
  if (!prompt.anchor.empty()) plan.segments.push_back(Fresh(prompt.anchor));
  for (const EvalChunk& chunk : prompt.chunks) plan.segments.push_back(Fresh(chunk.token_ids));
  plan.segments.push_back(Fresh(prompt.tail));
  return Compare(plan, prompt, {}, 0);
}

Result<ItemResult> ItemRunner::RunNoContext(const EvalPrompt& prompt) {
  PromptPlan plan;
  plan.segments.push_back(Fresh(prompt.without_context));
  return Compare(plan, prompt, {}, 0);
}

Result<Assembly> ItemRunner::Assemble(const EvalPrompt& prompt, const std::string& ingestion,
                                      KvCodec codec, const FusionPolicy& policy, double* load_ms) {
  KVASIR_ASSIGN_OR_RETURN(LabChunks made, lab_.Make(prompt, ingestion, codec));
  *load_ms = made.load_ms;
  AssemblyInput input;
  input.anchor_ids = prompt.anchor;
  input.anchor_blocks = made.anchor;
  for (size_t i = 0; i < prompt.chunks.size(); ++i) {
    input.chunks.push_back({prompt.chunks[i].token_ids, made.chunks[i]});
  }
  input.tail_ids = prompt.tail;
  input.policy = policy;
  return Assembler(nullptr).Assemble(std::move(input));
}

Result<ItemResult> ItemRunner::RunPolicy(const EvalPrompt& prompt, const std::string& ingestion,
                                         KvCodec codec, const FusionPolicy& policy) {
  double load_ms = 0;
  KVASIR_ASSIGN_OR_RETURN(Assembly assembly, Assemble(prompt, ingestion, codec, policy, &load_ms));
  RepairReport repair;
  if (policy.kind == PolicyKind::kCertify) {
    KVASIR_ASSIGN_OR_RETURN(
        const AuditStore::Samples samples,
        runtime_.audits().Load(EvalScope(runtime_, prompt.primer, ingestion, codec)));
    CertificateReport ignored;
    KVASIR_ASSIGN_OR_RETURN(repair, certifier_.Certify(policy, *samples, &assembly.plan, &ignored));
  } else {
    KVASIR_ASSIGN_OR_RETURN(repair, repair_.Choose(policy, &assembly.plan));
  }
  return Compare(assembly.plan, prompt, repair, load_ms);
}

Result<CalibrationSample> ItemRunner::MeasureRungs(const EvalPrompt& prompt,
                                                   const std::string& ingestion, KvCodec codec) {
  double ignored = 0;
  KVASIR_ASSIGN_OR_RETURN(const Assembly assembly,
                          Assemble(prompt, ingestion, codec, FusionPolicy::Concat(), &ignored));
  return certifier_.Measure(assembly.plan, reference_.front());
}

AuditScope EvalScope(const Runtime& runtime, const std::vector<int32_t>& primer,
                     const std::string& ingestion, KvCodec codec) {
  const auto condition = ParseIngestion(ingestion);
  const bool primed = condition.ok() && HasPrimer(*condition);
  return runtime.AuditScopeOf(ingestion, primed ? primer : std::vector<int32_t>(), codec);
}

}  // namespace kvasir
