// Eval: every row asked for on every question, with the anchors of the scale beside them (exact,
// noise floor, concat, no context). Resumable through a Checkpoint.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cache/chunk_key.h"
#include "cache/fusion_policy.h"
#include "service/eval/checkpoint.h"
#include "service/eval/eval_prompt.h"
#include "service/eval/item_runner.h"
#include "service/eval/questions.h"
#include "service/eval/result.h"
#include "service/runtime.h"

namespace kvasir {

struct EvalOptions {
  std::vector<FusionPolicy> policies;   // fused ones; concat is always there
  std::vector<std::string> ingestions;  // names of service/encoding.h, or in_place
  std::vector<KvCodec> codecs;
  int64_t items = 0;       // so many of the questions, the first; 0 = all
  uint64_t seed = 1;       // of the intervals' bootstrap
  bool calibrate = false;  // keep a sample of certify's rungs in the data folder for every question
  ItemRunnerOptions runner;
  EvalPromptOptions prompt;
};

struct EvalProgress {
  int64_t items_done = 0, items_total = 0;
  int64_t rows_done = 0, rows_total = 0;  // of all items
  double seconds = 0;
  std::string row;  // the next one
};

// What decides the results, for the Checkpoint.
EvalIdentity IdentityOf(const Runtime& runtime, const EvalOptions& options,
                        const std::string& questions_digest);

// `checkpoint` may be null. Stops between rows when `progress` says false: kCancelled.
Result<EvalReport> RunEvaluation(Runtime& runtime, const QuestionFile& questions,
                                 const EvalOptions& options, Checkpoint* checkpoint,
                                 const std::function<bool(const EvalProgress&)>& progress);

}  // namespace kvasir
