#include "service/primer_choice.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace kvasir {
namespace {

std::vector<float> MeanVector(const std::vector<PrimerCandidate>& candidates) {
  std::vector<float> mean;
  for (const PrimerCandidate& candidate : candidates) {
    mean.resize(std::max(mean.size(), candidate.vector.size()));
    for (size_t i = 0; i < candidate.vector.size(); ++i) mean[i] += candidate.vector[i];
  }
  return mean;
}

float Likeness(const PrimerCandidate& candidate, const std::vector<float>& mean) {
  return std::inner_product(candidate.vector.begin(), candidate.vector.end(), mean.begin(), 0.0f);
}

}  // namespace

std::vector<size_t> TypicalPassages(const std::vector<PrimerCandidate>& candidates, size_t wanted) {
  const std::vector<float> mean = MeanVector(candidates);
  std::vector<float> likeness;
  for (const PrimerCandidate& candidate : candidates) likeness.push_back(Likeness(candidate, mean));
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return likeness[a] > likeness[b]; });
  // The round in which a passage is taken: how many of its document come before it.
  std::vector<size_t> round(candidates.size());
  std::map<size_t, size_t> taken;
  for (const size_t index : order) round[index] = taken[candidates[index].document]++;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return round[a] < round[b]; });
  order.resize(std::min(wanted, order.size()));
  return order;
}

}  // namespace kvasir
