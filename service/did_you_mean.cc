#include "service/did_you_mean.h"

#include <algorithm>
#include <numeric>

namespace kvasir {

int EditDistance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

std::string DidYouMean(std::string_view name, const std::vector<std::string>& known) {
  std::string best;
  int best_distance = 0;
  for (const std::string& candidate : known) {
    const int distance = EditDistance(name, candidate);
    if (best.empty() || distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  const int bound = std::max<int>(2, static_cast<int>(best.size()) / 3);
  if (best.empty() || best_distance > bound) return "";
  return "; did you mean '" + best + "'?";
}

}  // namespace kvasir
