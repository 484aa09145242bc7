// Certifier: climbs the ladder of certify(eps, alpha) on one prompt until its first token stands
// still, by the rule of cache/certificate.h; and measures what every rung is worth, which is what
// the rule is calibrated by.
//
// One look over the KV as stored gives the logits below rung 0 and the scores by which all rungs
// choose: each rung holds the rows of the one before it. A rung is a request of one token like any
// other. The answer goes on from the KV of the rung where the rule stops and computes the question
// alone once more; looks, abandoned rungs and that question are charged as looked-at rows. Blocks
// the caller; thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cache/certificate.h"
#include "cache/fusion_policy.h"
#include "engine/engine.h"
#include "kernels/core/prompt_plan.h"
#include "kernels/core/status.h"
#include "service/engine_call.h"
#include "service/repair.h"

namespace kvasir {

// Rungs and selector in words: samples of another ladder say nothing about this one.
std::string LadderName();

// The plan with chunk KV as stored: no fused row is computed again.
PromptPlan StoredPlan(const PromptPlan& plan);

class Certifier {
 public:
  // Runs a request to its end, on its own terms of when.
  using Pass = std::function<Result<FinishedCall>(Request)>;

  // stop_ids as Repair's.
  Certifier(Engine& engine, std::vector<int32_t> stop_ids)
      : engine_(engine), repair_(engine, std::move(stop_ids)) {}

  // Changes a plan with chunk KV as stored into the one of the rung where the rule stops; exact is
  // FlatPlan. `samples` are of this model, ingestion, codec and ladder.
  Result<RepairReport> Certify(const FusionPolicy& policy,
                               std::span<const CalibrationSample> samples, PromptPlan* plan,
                               CertificateReport* report);

  // All rungs of a stored plan against exact's logits of the first token, fp32 [V].
  Result<CalibrationSample> Measure(const PromptPlan& stored, const std::vector<float>& exact);
  Result<CalibrationSample> Measure(const PromptPlan& stored, const std::vector<float>& exact,
                                    const Pass& pass);

  // Logits of the plan's first answer token, fp32 [V].
  // `kept`, unless null: KV of its segments (Request::on_segments).
  static Result<std::vector<float>> FirstLogits(
      const PromptPlan& plan, const Pass& pass,
      std::vector<std::shared_ptr<const KvBlocks>>* kept = nullptr);

 private:
  // What is known below rung 0.
  struct Base {
    std::vector<float> scores, logits;
    double rows = 0;  // computed by the look
  };
  Result<Base> LookAt(const PromptPlan& stored);
  Status Climb(std::span<const CalibrationSample> samples, double alpha, const Pass& pass,
               PromptPlan* plan, RepairReport* repair, CertificateReport* report);

  Engine& engine_;
  Repair repair_;
};

}  // namespace kvasir
