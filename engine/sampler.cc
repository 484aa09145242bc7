#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kvasir {

bool NeedsHistory(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
         params.frequency_penalty != 0.0f;
}

bool DrawsFromLogitsAlone(const SamplingParams& params) {
  return params.logprobs < 0 && params.logit_bias.empty() && !NeedsHistory(params);
}

DrawParams DrawOf(const SamplingParams& params, uint64_t position) {
  return {params.temperature, params.top_k, params.top_p, params.min_p, params.seed, position};
}

Status BadLogits() { return Internal("the model's logits hold NaN or infinity"); }

void Sampler::Adjust(std::span<const float> logits, const SamplingParams& params,
                     const TokenHistory& history) {
  adjusted_ = logits;
  if (params.logit_bias.empty() && !NeedsHistory(params)) return;
  edited_.assign(logits.begin(), logits.end());
  adjusted_ = edited_;
  for (const auto& [id, bias] : params.logit_bias) edited_[size_t(id)] += bias;
  if (params.repetition_penalty != 1.0f) {
    for (const int32_t id : history.seen) {
      float& logit = edited_[size_t(id)];
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    }
  }
  for (const auto& [id, count] : history.answered) {
    edited_[size_t(id)] -=
        params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
  }
}

void Sampler::TakeLogprobs(const SamplingParams& params, Sample* sample) const {
  const float max_logit = adjusted_[size_t(BestToken(adjusted_))];
  double total = 0.0;
  for (const float logit : adjusted_) total += std::exp(double{logit} - double{max_logit});
  const double log_total = double{max_logit} + std::log(total);
  const auto entry = [&](int32_t id) {
    return TokenLogprob{id, static_cast<float>(double{adjusted_[size_t(id)]} - log_total)};
  };
  sample->logprob = entry(sample->token);
  std::vector<int32_t> ids(adjusted_.size());
  std::iota(ids.begin(), ids.end(), 0);
  const size_t wanted = std::min(ids.size(), size_t(params.logprobs));
  std::partial_sort(ids.begin(), ids.begin() + std::ptrdiff_t(wanted), ids.end(),
                    [&](int32_t a, int32_t b) {
                      const float x = adjusted_[size_t(a)], y = adjusted_[size_t(b)];
                      return x != y ? x > y : a < b;
                    });
  for (size_t i = 0; i < wanted; ++i) sample->top.push_back(entry(ids[i]));
}

Result<Sample> Sampler::Draw(std::span<const float> logits, const SamplingParams& params,
                             const TokenHistory& history, uint64_t position) {
  Adjust(logits, params, history);
  Sample sample;
  sample.token = drawer_.Draw(adjusted_, DrawOf(params, position));
  if (sample.token < 0) return BadLogits();
  if (params.logprobs >= 0) TakeLogprobs(params, &sample);
  return sample;
}

}  // namespace kvasir
