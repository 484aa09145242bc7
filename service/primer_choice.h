// TypicalPassages: which passages of a collection stand for all of it, to be its fixed primer
// (service/encoding.h). Text of the collection's own kind is a better primer than any other: the
// README's table has figures.
//
// Pure function; thread-safe; the same passages in the same order give the same choice.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace kvasir {

inline constexpr size_t kPrimerCandidates = 256;  // embedded; of more, every n-th
inline constexpr size_t kPrimerPassages = 16;     // chosen; collection.primer_tokens may cut

struct PrimerCandidate {
  size_t document = 0;
  std::string text;
  std::vector<float> vector;  // embedding, of length 1
};

// Indices of at most `wanted` candidates, nearest to the mean of all first; no document gives a
// second one before every other has given its first.
std::vector<size_t> TypicalPassages(const std::vector<PrimerCandidate>& candidates, size_t wanted);

}  // namespace kvasir
