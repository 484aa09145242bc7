// Sampler: from one row of logits to one token.
//
// Order of operations (as vLLM applies them; llama.cpp differs in applying temperature last):
//   logit_bias, repetition penalty, presence and frequency penalties, [log-probabilities are taken
//   here], then the draw (kernels/core/draw.h).
// A draw depends on the logits, the history, the parameters and (seed, position) alone.
//
// Not thread-safe (it keeps scratch memory); one per engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/request.h"
#include "engine/sampling_params.h"
#include "kernels/core/draw.h"
#include "kernels/core/status.h"

namespace kvasir {

// kInvalidArgument names the field, its value and its bounds.
Status CheckSampling(const SamplingParams& params, int32_t vocab);

// What penalties look back on. Left empty by requests without penalties.
struct TokenHistory {
  std::unordered_set<int32_t> seen;               // prompt and answer
  std::unordered_map<int32_t, int32_t> answered;  // answer: id -> how often
};
bool NeedsHistory(const SamplingParams& params);

// No bias, penalties or log-probabilities: a backend may draw such a token by itself.
bool DrawsFromLogitsAlone(const SamplingParams& params);
DrawParams DrawOf(const SamplingParams& params, uint64_t position);
// What is said of a row that no token can be drawn from.
Status BadLogits();

struct Sample {
  int32_t token = -1;
  TokenLogprob logprob;           // if params.logprobs >= 0
  std::vector<TokenLogprob> top;  // params.logprobs of them
};

class Sampler {
 public:
  // logits [V]; `position` of the token to be drawn. kInternal if a logit is NaN or +infinity.
  Result<Sample> Draw(std::span<const float> logits, const SamplingParams& params,
                      const TokenHistory& history, uint64_t position);

 private:
  void Adjust(std::span<const float> logits, const SamplingParams& params,
              const TokenHistory& history);
  void TakeLogprobs(const SamplingParams& params, Sample* sample) const;

  std::vector<float> edited_;        // [V] after bias and penalties, if there are any
  std::span<const float> adjusted_;  // those, or the model's own
  TokenDrawer drawer_;
};

}  // namespace kvasir
