#include "service/repair.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "cache/selector.h"
#include "service/elapsed.h"
#include "service/engine_call.h"
#include "service/kv_shift.h"

namespace kvasir {
namespace {

constexpr int32_t kBlendLayer = 1;

}  // namespace

PromptPlan FlatPlan(const PromptPlan& plan) {
  PromptPlan flat;
  SegmentPlan& segment = flat.segments.emplace_back();
  for (const SegmentPlan& part : plan.segments) {
    segment.token_ids.insert(segment.token_ids.end(), part.token_ids.begin(), part.token_ids.end());
  }
  return flat;
}

Result<AttentionMass> Repair::Look(const PromptPlan& plan, const QuerySelector& selector,
                                   std::vector<float>* logits) {
  const LayerRange layers = LayersOf(selector, engine_.model().config.layers);
  auto mass = std::make_shared<AttentionMass>();
  mass->rows = selector.rows;
  mass->layer_begin = layers.begin;
  mass->layer_end = layers.end;
  Request request;
  request.prompt = plan;
  request.attention = mass;
  mass->answer = selector.draft > 0;
  const bool decodes = mass->answer || logits != nullptr;
  request.max_tokens = decodes ? selector.draft + 1 : 0;  // the last token is not fed back
  request.layers = decodes ? 0 : layers.end;
  request.stop_ids = stop_ids_;
  if (logits != nullptr) {
    request.on_logits = [logits](const std::vector<float>& values) {
      if (logits->empty()) *logits = values;
    };
  }
  KVASIR_RETURN_IF_ERROR(RunToEnd(engine_, std::move(request)).status());
  return std::move(*mass);
}

Status Repair::AddQueryRows(const QuerySelector& query, PromptPlan* plan, RepairReport* report) {
  const auto rows = static_cast<double>(FusedRows(*plan));
  int32_t chosen = 0;
  for (int32_t round = 0; round < query.rounds; ++round) {
    const PromptAccount account = AccountOf(*plan);
    KVASIR_ASSIGN_OR_RETURN(const AttentionMass mass, Look(*plan, query));
    ++report->looks;
    const double depth =
        query.draft > 0 ? 1.0 : static_cast<double>(mass.layer_end) / engine_.model().config.layers;
    report->looked_rows +=
        static_cast<double>(account.recomputed + account.computed + query.draft) * depth;
    // Of all rows by the end of this round, less what is there: no row is lost to rounding.
    const double wanted = query.ratio * rows * (round + 1) / query.rounds;
    const SelectionBudget budget{std::max(0.0, wanted - chosen) / rows, query.floor / query.rounds,
                                 query.mass};
    chosen += SelectRows(AttentionScores(mass, query), budget, plan);
  }
  report->selected += chosen;
  return Status::Ok();
}

Result<std::vector<float>> Repair::ProbeDeviations(const PromptPlan& plan) {
  Request request;
  request.prompt = FlatPlan(plan);
  request.max_tokens = 0;
  request.layers = kBlendLayer + 1;
  request.capture = std::make_shared<KvCapture>();
  const std::shared_ptr<KvCapture> capture = request.capture;
  KVASIR_RETURN_IF_ERROR(RunToEnd(engine_, std::move(request)).status());
  const size_t width = static_cast<size_t>(capture->kv_heads * capture->head_dim);
  const float* fresh = capture->v.data() + kBlendLayer * capture->LayerStride();
  std::vector<float> scores(static_cast<size_t>(capture->tokens), 0.0f);
  size_t base = 0;
  for (const SegmentPlan& segment : plan.segments) {
    if (segment.blocks != nullptr) {
      std::vector<float> keys, values;
      // KV that cannot be loaded is computed by the engine, all of it.
      if (!engine_.ReadBlocks(*segment.blocks, kBlendLayer, &keys, &values).ok()) {
        base += static_cast<size_t>(segment.tokens());
        continue;
      }
      const float* from = fresh + base * width;
      const std::vector<float> now(from, from + values.size());
      const std::vector<float> deviations = Deviations(now, values, segment.reused());
      std::copy(deviations.begin(), deviations.end(), scores.begin() + std::ptrdiff_t(base));
    }
    base += static_cast<size_t>(segment.tokens());
  }
  return scores;
}

Status Repair::AddBlendRows(double ratio, PromptPlan* plan, RepairReport* report) {
  const int32_t layers = engine_.model().config.layers;
  if (layers <= kBlendLayer) {
    return InvalidArgument("blend needs a model of at least 2 layers; use query or link");
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<float> scores, ProbeDeviations(*plan));
  report->looked_rows += static_cast<double>(scores.size()) * (kBlendLayer + 1) / layers;
  report->selected += SelectRows(scores, {ratio, 0, 1}, plan);
  return Status::Ok();
}

Result<RepairReport> Repair::Choose(const FusionPolicy& policy, PromptPlan* plan) {
  RepairReport report;
  const auto begin = std::chrono::steady_clock::now();
  if (FusedRows(*plan) == 0) return report;
  if (policy.blend_ratio > 0) {
    KVASIR_RETURN_IF_ERROR(AddBlendRows(policy.blend_ratio, plan, &report));
  }
  if (policy.query.ratio > 0) KVASIR_RETURN_IF_ERROR(AddQueryRows(policy.query, plan, &report));
  if (policy.shift) {
    KVASIR_RETURN_IF_ERROR(KvShift(engine_).Apply(plan, &report.looked_rows));
  }
  report.ms = MillisecondsSince(begin);
  return report;
}

}  // namespace kvasir
