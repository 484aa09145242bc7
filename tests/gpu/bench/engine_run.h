// Requests through an engine, with the time of every token.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/engine.h"

namespace kvasir::bench {

struct Spoken {
  std::vector<int32_t> tokens;
  std::vector<double> seconds;  // of each token, from the moment that the first was submitted
  std::vector<float> logits;    // behind the prompt, if `logits` was asked for
  std::vector<float> leads;     // nats between a token and the next best, where asked for
  Status status;
};

// Submits all at once and waits for all; the first error is the result.
Result<std::vector<Spoken>> RunRequests(Engine& engine, std::vector<Request> requests,
                                        bool logits = false);

std::vector<int32_t> RandomTokens(int32_t count, uint64_t seed, int32_t vocab);
// A fresh prompt; greedy, to the last token, without drafts.
Request Ask(std::vector<int32_t> prompt, int32_t max_tokens);

// Room for `sequences` of `tokens` tokens each, steps of `step_rows`.
EngineOptions OptionsFor(const ModelConfig& config, int32_t sequences, int32_t tokens,
                         int32_t step_rows);

}  // namespace kvasir::bench
