// An independent forward pass for gates: dense attention in double over an arbitrary sight matrix,
// no pool, no segments, no slices. Linear algebra comes from the backend, which has tests of its
// own.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/model/model.h"

namespace kvasir::test {

// Whether row i sees key j, and at which distance (position of i minus position of j).
struct Sight {
  bool visible = false;
  int64_t distance = 0;
};
using SightOf = std::function<Sight(int32_t row, int32_t key)>;

// Every row sees itself and what lies before it, at positions 0, 1, ...
Sight CausalSight(int32_t row, int32_t key);

// Logits of the last row.
std::vector<float> NaiveForward(const Model& model, Backend& backend,
                                const std::vector<int32_t>& tokens, const SightOf& sight);

}  // namespace kvasir::test
