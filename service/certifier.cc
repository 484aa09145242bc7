#include "service/certifier.h"

#include <chrono>
#include <iterator>

#include "cache/selector.h"
#include "service/elapsed.h"
#include "service/eval/metrics.h"

namespace kvasir {
namespace {

using SegmentKv = std::vector<std::shared_ptr<const KvBlocks>>;

constexpr size_t kRungs = std::size(kCertifyRungs);

FusionPolicy PolicyOf(size_t rung) {
  return rung < kRungs ? FusionPolicy::Query(kCertifyRungs[rung]) : FusionPolicy::Exact();
}

PromptPlan PlanOf(const PromptPlan& stored, const std::vector<float>& scores, size_t rung) {
  PromptPlan plan = stored;
  SelectRows(scores, {kCertifyRungs[rung], 0, 1}, &plan);
  return plan;
}

double RowsOf(const PromptPlan& plan) { return static_cast<double>(plan.rows()); }

// The plan that goes on from a tried one's KV: `kept` by segment. What it need not compute again
// still counts as recomputed.
PromptPlan AnswerPlan(const PromptPlan& tried, const SegmentKv& kept) {
  PromptPlan plan = tried;
  size_t next = 0;
  for (SegmentPlan& segment : plan.segments) {
    if (segment.tokens() == 0) continue;
    const std::shared_ptr<const KvBlocks>& kv = kept.at(next++);
    if (segment.recompute.empty() || kv == nullptr) continue;
    segment.blocks = kv;
    segment.repaired += static_cast<int32_t>(segment.recompute.size());
    segment.recompute.clear();
  }
  return plan;
}

}  // namespace

std::string LadderName() {
  const QuerySelector asked;
  std::string name = "rows=" + std::to_string(asked.rows) +
                     ",layers=" + std::to_string(asked.layer_begin) + "-" +
                     std::to_string(asked.layer_end) +
                     ",heads=" + (asked.heads == HeadMerge::kSum ? "sum" : "max") +
                     ",smooth=" + std::to_string(asked.smooth);
  for (size_t rung = 0; rung < kRungs; ++rung) name.append(" ").append(PolicyOf(rung).Name());
  return name;
}

PromptPlan StoredPlan(const PromptPlan& plan) {
  PromptPlan stored = plan;
  for (SegmentPlan& segment : stored.segments) {
    if (segment.reuse == ReuseKind::kFused) segment.recompute.clear();
  }
  return stored;
}

Result<std::vector<float>> Certifier::FirstLogits(const PromptPlan& plan, const Pass& pass,
                                                  SegmentKv* kept) {
  std::vector<float> logits;
  Request request;
  if (kept != nullptr) request.on_segments = [kept](SegmentKv kv) { *kept = std::move(kv); };
  request.prompt = plan;
  request.max_tokens = 1;
  request.on_logits = [&logits](const std::vector<float>& values) {
    if (logits.empty()) logits = values;
  };
  KVASIR_RETURN_IF_ERROR(pass(std::move(request)).status());
  return logits;
}

Result<Certifier::Base> Certifier::LookAt(const PromptPlan& stored) {
  const QuerySelector selector;
  Base base;
  KVASIR_ASSIGN_OR_RETURN(const AttentionMass mass, repair_.Look(stored, selector, &base.logits));
  base.scores = AttentionScores(mass, selector);
  base.rows = RowsOf(stored);
  return base;
}

Status Certifier::Climb(std::span<const CalibrationSample> samples, double alpha, const Pass& pass,
                        PromptPlan* plan, RepairReport* repair, CertificateReport* report) {
  KVASIR_ASSIGN_OR_RETURN(Base base, LookAt(*plan));
  repair->looks = 1;
  repair->looked_rows = base.rows;
  for (size_t rung = 0; rung < kRungs; ++rung) {
    PromptPlan tried = PlanOf(*plan, base.scores, rung);
    SegmentKv kept;
    KVASIR_ASSIGN_OR_RETURN(std::vector<float> logits, FirstLogits(tried, pass, &kept));
    report->movement.push_back(KlDivergence(logits, base.logits));
    if (StopAt(report->movement, report->lambda) == rung) {
      report->rung = PolicyOf(rung).Name();
      report->predicted_kl = PredictKl(samples, rung, report->movement.back(), alpha);
      repair->selected = static_cast<int32_t>(AccountOf(tried).recomputed);
      *plan = AnswerPlan(tried, kept);
      repair->looked_rows += RowsOf(*plan);  // the question, once more than it answers
      return Status::Ok();
    }
    repair->looked_rows += RowsOf(tried);
    base.logits = std::move(logits);
  }
  *plan = FlatPlan(*plan);
  return Status::Ok();
}

Result<RepairReport> Certifier::Certify(const FusionPolicy& policy,
                                        std::span<const CalibrationSample> samples,
                                        PromptPlan* plan, CertificateReport* report) {
  const auto begin = std::chrono::steady_clock::now();
  RepairReport repair;
  *report = {};
  report->samples = static_cast<int64_t>(samples.size());
  report->rung = PolicyOf(kRungs).Name();
  report->predicted_kl = 0;
  if (FusedRows(*plan) == 0) return repair;  // nothing reused: exact as it is
  report->lambda = CalibrateLambda(samples, policy.epsilon, policy.alpha);
  if (report->lambda) {
    const Pass pass = [this](Request request) { return RunToEnd(engine_, std::move(request)); };
    KVASIR_RETURN_IF_ERROR(Climb(samples, policy.alpha, pass, plan, &repair, report));
  } else {
    *plan = FlatPlan(*plan);
  }
  repair.ms = MillisecondsSince(begin);
  return repair;
}

Result<CalibrationSample> Certifier::Measure(const PromptPlan& stored,
                                             const std::vector<float>& exact) {
  return Measure(stored, exact,
                 [this](Request request) { return RunToEnd(engine_, std::move(request)); });
}

Result<CalibrationSample> Certifier::Measure(const PromptPlan& stored,
                                             const std::vector<float>& exact, const Pass& pass) {
  KVASIR_ASSIGN_OR_RETURN(Base base, LookAt(stored));
  const auto all = static_cast<double>(AccountOf(stored).requested);
  CalibrationSample sample;
  double spent = base.rows;
  const double answer = RowsOf(stored);
  for (size_t rung = 0; rung < kRungs; ++rung) {
    const PromptPlan plan = PlanOf(stored, base.scores, rung);
    KVASIR_ASSIGN_OR_RETURN(std::vector<float> logits, FirstLogits(plan, pass));
    spent += RowsOf(plan);
    sample.movement.push_back(KlDivergence(logits, base.logits));
    sample.kl.push_back(KlDivergence(exact, logits));
    sample.charged.push_back((spent + answer) / all);
    base.logits = std::move(logits);
  }
  sample.charged.push_back((spent + all) / all);
  return sample;
}

}  // namespace kvasir
