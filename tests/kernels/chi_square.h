// How well draws of tokens follow their distribution.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <vector>

namespace kvasir {

// Of `draws` tokens, counted by id, under softmax(logits / temperature). logits.size() - 1 degrees
// of freedom.
inline double ChiSquare(const std::map<int32_t, int>& counts, const std::vector<float>& logits,
                        double temperature, int draws) {
  double total = 0, chi_square = 0;
  for (const float logit : logits) total += std::exp(logit / temperature);
  for (size_t id = 0; id < logits.size(); ++id) {
    const double expected = draws * std::exp(logits[id] / temperature) / total;
    const auto found = counts.find(static_cast<int32_t>(id));
    const double observed = found == counts.end() ? 0 : found->second;
    chi_square += (observed - expected) * (observed - expected) / expected;
  }
  return chi_square;
}

}  // namespace kvasir
