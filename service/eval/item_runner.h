// ItemRunner: one question answered by full prefill, and the same answer fed to every row: the
// quality protocol of the design of fusing, section 6.
//
// Full prefill answers greedily; each row then gets these tokens one by one (teacher forcing) and
// its distribution at every step is compared with full's. One question at a time; not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cache/assembler.h"
#include "service/certifier.h"
#include "service/eval/chunk_lab.h"
#include "service/eval/eval_prompt.h"
#include "service/eval/result.h"
#include "service/repair.h"
#include "service/runtime.h"

namespace kvasir {

struct ItemRunnerOptions {
  int32_t steps = 16;        // answer tokens compared, at most
  bool free_answers = true;  // decode every row freely too: divergence, ROUGE-L, F1
};

// Where certify's samples of such rows lie: the same place as those of live requests. primer:
// FixedPrimerOf, left out where the condition has none.
AuditScope EvalScope(const Runtime& runtime, const std::vector<int32_t>& primer,
                     const std::string& ingestion, KvCodec codec);

class ItemRunner {
 public:
  ItemRunner(Runtime& runtime, ChunkLab& lab, const ItemRunnerOptions& options)
      : runtime_(runtime),
        lab_(lab),
        repair_(runtime.engine(), runtime.chat_template().stop_ids()),
        certifier_(runtime.engine(), runtime.chat_template().stop_ids()),
        options_(options) {}

  // Full prefill and its answer. Must come first for every question.
  Result<ItemResult> RunExact(const EvalPrompt& prompt, const std::vector<std::string>& golds);
  // Full prefill with the prompt cut into segments as a fused one is: other tiles, other sums.
  Result<ItemResult> RunNoiseFloor(const EvalPrompt& prompt);
  Result<ItemResult> RunNoContext(const EvalPrompt& prompt);
  Result<ItemResult> RunPolicy(const EvalPrompt& prompt, const std::string& ingestion,
                               KvCodec codec, const FusionPolicy& policy);

  // Every rung of certify against full prefill, for its calibration.
  Result<CalibrationSample> MeasureRungs(const EvalPrompt& prompt, const std::string& ingestion,
                                         KvCodec codec);

  const std::string& full_answer() const { return full_text_; }

 private:
  struct Outcome;
  Result<Assembly> Assemble(const EvalPrompt& prompt, const std::string& ingestion, KvCodec codec,
                            const FusionPolicy& policy, double* load_ms);
  std::vector<int32_t> GoldPath(const EvalPrompt& prompt) const;
  Result<Outcome> Run(const PromptPlan& plan, const EvalPrompt& prompt);
  Result<ItemResult> Compare(const PromptPlan& plan, const EvalPrompt& prompt,
                             const RepairReport& repair, double load_ms);
  void ReadGold(const Outcome& outcome, const EvalPrompt& prompt, ItemResult* result) const;
  void ReadFree(const Outcome& outcome, ItemResult* result) const;

  Runtime& runtime_;
  ChunkLab& lab_;
  Repair repair_;
  Certifier certifier_;
  const ItemRunnerOptions options_;

  std::vector<std::string> golds_;
  std::vector<int32_t> path_;  // full's answer, what follows the last token included
  std::vector<std::vector<float>> reference_;  // full's logits [steps][V]
  std::vector<int32_t> full_tokens_;           // without the stop token
  std::string full_text_;
};

}  // namespace kvasir
