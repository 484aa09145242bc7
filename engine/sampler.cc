#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/random.h"

namespace kvasir {
namespace {

// Integers in the order of floats: NaNs lie below -infinity's or above infinity's, both zeros at 0.
int32_t OrderedKey(float value) {
  const auto bits = std::bit_cast<int32_t>(value + 0.0f);
  return bits ^ (bits >> 31 & 0x7fffffff);
}
const int32_t kLeastKey = OrderedKey(-std::numeric_limits<float>::infinity());
const int32_t kInfinityKey = OrderedKey(std::numeric_limits<float>::infinity());

constexpr auto kHeavierFirst = [](const auto& a, const auto& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
};

}  // namespace

bool NeedsHistory(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
         params.frequency_penalty != 0.0f;
}

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

// -1 if a logit is NaN or +infinity, or if all are -infinity. Extremes of integers make vectors
// where those of floats, which are not associative, do not.
int32_t Sampler::Argmax() const {
  constexpr size_t kRun = 1024;
  int32_t best = kLeastKey;
  std::span<const float> where;
  for (size_t begin = 0; begin < adjusted_.size(); begin += kRun) {
    const auto run = adjusted_.subspan(begin, std::min(kRun, adjusted_.size() - begin));
    int32_t least = kInfinityKey, greatest = kLeastKey;
    for (const float logit : run) {
      const int32_t key = OrderedKey(logit);
      least = std::min(least, key);
      greatest = std::max(greatest, key);
    }
    if (least < kLeastKey || greatest >= kInfinityKey) return -1;
    if (greatest > best) {
      best = greatest;
      where = run;
    }
  }
  if (best == kLeastKey) return -1;
  const auto first = std::max_element(where.begin(), where.end());
  return static_cast<int32_t>(&*first - adjusted_.data());
}

void Sampler::KeepTopK(int32_t k) {
  if (k <= 0 || size_t(k) >= candidates_.size()) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + k, candidates_.end(), kHeavierFirst);
  candidates_.resize(size_t(k));
}

// The shortest run of heaviest candidates whose share reaches p. Sorts only as far as needed.
void Sampler::KeepTopP(double p) {
  if (p >= 1.0) return;
  const double total =
      std::accumulate(candidates_.begin(), candidates_.end(), 0.0,
                      [](double sum, const Candidate& c) { return sum + c.weight; });
  double sum = 0.0;
  size_t sorted = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (i == sorted) {
      sorted = std::min(candidates_.size(), std::max<size_t>(64, sorted * 4));
      std::partial_sort(candidates_.begin() + std::ptrdiff_t(i),
                        candidates_.begin() + std::ptrdiff_t(sorted), candidates_.end(),
                        kHeavierFirst);
    }
    sum += candidates_[i].weight;
    if (sum >= p * total) {
      candidates_.resize(i + 1);
      return;
    }
  }
}

// The heaviest candidate has weight 1 and is never cut.
void Sampler::KeepMinP(double p) {
  if (p <= 0.0) return;
  std::erase_if(candidates_, [p](const Candidate& c) { return c.weight < p; });
}

int32_t Sampler::Pick(double uniform) const {
  double total = 0.0;
  for (const Candidate& c : candidates_) total += c.weight;
  double left = uniform * total;
  for (const Candidate& c : candidates_) {
    left -= c.weight;
    if (left < 0.0) return c.id;
  }
  // Rounding ate the rest: the last candidate that has any weight.
  const auto last = std::find_if(candidates_.rbegin(), candidates_.rend(),
                                 [](const Candidate& c) { return c.weight > 0.0; });
  return last->id;
}

int32_t Sampler::DrawRandom(const SamplingParams& params, float max_logit, uint64_t position) {
  candidates_.clear();
  candidates_.reserve(adjusted_.size());
  for (size_t id = 0; id < adjusted_.size(); ++id) {
    const double distance = double{adjusted_[id]} - double{max_logit};
    candidates_.push_back(
        {static_cast<int32_t>(id), std::exp(distance / double{params.temperature})});
  }
  KeepTopK(params.top_k);
  KeepTopP(params.top_p);
  KeepMinP(params.min_p);
  // nth_element leaves an order that depends on the library: draw in order of ids.
  const auto by_id = [](const Candidate& a, const Candidate& b) { return a.id < b.id; };
  if (!std::is_sorted(candidates_.begin(), candidates_.end(), by_id)) {
    std::sort(candidates_.begin(), candidates_.end(), by_id);
  }
  return Pick(UniformAt(params.seed, position));
}

void Sampler::TakeLogprobs(const SamplingParams& params, float max_logit, Sample* sample) const {
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
  sample.token = Argmax();
  if (sample.token < 0) return Internal("the model's logits hold NaN or infinity");
  const float max_logit = adjusted_[size_t(sample.token)];
  if (params.temperature > 0.0f) sample.token = DrawRandom(params, max_logit, position);
  if (params.logprobs >= 0) TakeLogprobs(params, max_logit, &sample);
  return sample;
}

}  // namespace kvasir
