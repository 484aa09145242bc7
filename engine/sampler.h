// Sampler: from one row of logits to one token.
//
// Order of operations (as vLLM applies them; llama.cpp differs in applying temperature last):
//   logit_bias, repetition penalty, presence and frequency penalties, [log-probabilities are taken
//   here], temperature, top-k, top-p over what top-k left, min-p, draw.
// Ties are broken towards the lowest id everywhere. A draw depends on the logits, the history, the
// parameters and (seed, position) alone.
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
  struct Candidate {
    int32_t id;
    double weight;  // exp((logit - max) / temperature)
  };

  void Adjust(std::span<const float> logits, const SamplingParams& params,
              const TokenHistory& history);
  int32_t Argmax() const;
  int32_t DrawRandom(const SamplingParams& params, float max_logit, uint64_t position);
  void KeepTopK(int32_t k);
  void KeepTopP(double p);
  void KeepMinP(double p);
  int32_t Pick(double uniform) const;
  void TakeLogprobs(const SamplingParams& params, float max_logit, Sample* sample) const;

  std::vector<float> edited_;        // [V] after bias and penalties, if there are any
  std::span<const float> adjusted_;  // those, or the model's own
  std::vector<Candidate> candidates_;
};

}  // namespace kvasir
