// SamplingParams: how the next token is drawn. Defaults are greedy, as OpenAI's fields name them.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace kvasir {

struct SamplingParams {
  float temperature = 0.0f;         // 0 = greedy (ties: lowest id); [0, 2]
  int32_t top_k = 0;                // 0 = off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1): of the most likely token's probability
  float repetition_penalty = 1.0f;  // > 0; over prompt and answer (CTRL)
  float presence_penalty = 0.0f;    // [-2, 2]; over the answer
  float frequency_penalty = 0.0f;   // [-2, 2]; over the answer
  uint64_t seed = 0;                // same seed, same prompt, same answer, whatever the batch
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // (token id, added to its logit)
  int32_t logprobs = -1;  // -1 none, 0 the chosen token's, n also the n most likely
};

}  // namespace kvasir
