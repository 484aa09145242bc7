// NearDuplicates: recognises texts that say the same as one seen before.
// Not thread-safe; one per search.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace kvasir {

class NearDuplicates {
 public:
  // See RetrieverOptions::duplicate_overlap.
  explicit NearDuplicates(double overlap) : overlap_(overlap) {}

  // True if `text` is the same as, or nearly, a text that was added; else adds it.
  bool SeenOrAdd(std::string_view text);

 private:
  // Hashes of the text's word pairs, ascending, unique; words are runs of letters and digits, case
  // folded for ASCII. Texts of one word have that word alone.
  using Pairs = std::vector<uint64_t>;
  static Pairs PairsOf(std::string_view text);
  static double Overlap(const Pairs& a, const Pairs& b);  // Jaccard: 1 = same set

  double overlap_;
  std::vector<Pairs> seen_;
};

}  // namespace kvasir
