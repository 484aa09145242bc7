// Request: what the engine is asked, and TokenEvent: what it says back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/drafter.h"
#include "engine/sampling_params.h"
#include "kernels/core/attention_mass.h"
#include "kernels/core/prompt_plan.h"
#include "kernels/core/status.h"

namespace kvasir {

using RequestId = uint64_t;

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kError };

struct TokenLogprob {
  int32_t id = -1;
  float logprob = 0.0f;  // natural logarithm, after penalties and bias, before temperature
};

struct RequestTiming {
  double queued_ms = 0;   // submit to first step
  double prefill_ms = 0;  // first step to first token
  double decode_ms = 0;   // first token to last
};

// Tokens that a drafter guessed, and how many of them the answer took (engine/drafter.h).
struct DraftCounts {
  int64_t drafted = 0, accepted = 0;
};

// One generated token, or the end of the request (token -1, finish set). After the event with
// `finish` no other follows.
struct TokenEvent {
  int32_t token = -1;
  TokenLogprob logprob;           // if asked for
  std::vector<TokenLogprob> top;  // if asked for, most likely first
  FinishReason finish = FinishReason::kNone;
  Status status;         // why, for kError and kCancelled
  RequestTiming timing;  // with finish
  LostRows lost;         // with finish
  DraftCounts drafts;    // with finish
};

struct Request {
  PromptPlan prompt;
  SamplingParams sampling;
  int32_t max_tokens = 256;       // 0 = prefill only: no logits, no tokens
  std::vector<int32_t> stop_ids;  // end the answer, not emitted; ignored if ignore_eos
  bool ignore_eos = false;        // benchmarks
  // Tokens may be drafted and verified several at a time; the answer is the same either way.
  bool speculate = true;
  // Makes one more drafter of this answer beside those of the engine; may be empty or give null.
  // Called on the engine's thread before the first tokens are drafted.
  std::function<std::unique_ptr<Drafter>()> drafter;
  // While this runs, prompts of other requests get so many rows a step at most, all together, so
  // that its steps are short; 0 = as many as a step has. Requests that set it bind each other not.
  int32_t rows_beside = 0;
  // Called on the engine's thread: must not block; post to your own executor.
  std::function<void(const TokenEvent&)> sink;

  // Prefill-only ingestion: K, V of the last segment's computed rows, in order, are copied here.
  // The engine writes it until the finish event; sized by the engine.
  std::shared_ptr<KvCapture> capture;

  // Where the prompt's last rows look, gathered while they are computed. The engine writes it until
  // the first token's or the finish event.
  std::shared_ptr<AttentionMass> attention;

  // Probe: only the first `layers` layers are computed (0 = all). Their KV alone is valid
  // afterwards, and there are no logits: max_tokens must be 0.
  int32_t layers = 0;

  // Teacher forcing (eval): each path's tokens are fed as if they had been drawn, one path after
  // the other, all from the prompt's end, before the free answer of max_tokens begins. on_logits
  // sees the prompt's logits once, then those behind every fed token; a path's last token is not
  // fed. No token events. Paths must fit max_tokens and the context.
  std::vector<std::vector<int32_t>> forced;
  bool only_forced = false;  // end (kLength) behind the last path, without a free answer

  // Logits of the last prompt row and of every generated step, for eval and gates: called on the
  // engine's thread with fp32 [V].
  std::function<void(const std::vector<float>&)> on_logits;

  // After prefill, for prompts of one segment only (exact KV from position 0): the full blocks of
  // the prompt, so that the caller's prefix index can share them. Called on the engine's thread.
  std::function<void(std::shared_ptr<const KvBlocks>)> on_prefix;

  // After prefill: KV of each of the prompt's segments that hold tokens, but for the last one
  // (null: the answer is written there), rows computed again included, so that another request can
  // go on from it. Called on the engine's thread.
  std::function<void(std::vector<std::shared_ptr<const KvBlocks>>)> on_segments;
};

}  // namespace kvasir
