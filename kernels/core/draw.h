// How a token is drawn from one row of logits, once bias and penalties are in it.
//
// Order of operations: temperature, top-k, top-p over what top-k left, min-p, draw in order of ids.
// Ties are broken towards the lowest id everywhere. A draw depends on the logits and its DrawParams
// alone; a device that draws by itself (Backend::Sample) takes the same token, but for the rounding
// of its weights.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvasir {

struct DrawParams {
  float temperature = 0;  // 0 = the highest logit
  int32_t top_k = 0;      // 0 = off
  float top_p = 1;        // (0, 1]
  float min_p = 0;        // [0, 1): of the heaviest candidate's weight
  uint64_t seed = 0;      // of the request
  uint64_t position = 0;  // of the token to be drawn
};

// One of the rows that tokens are drawn from.
struct RowDraw {
  int32_t row = 0;
  DrawParams params;
};

// The lowest id of the highest logit [V]; -1 if one is NaN or +infinity, or if all are -infinity.
int32_t BestToken(std::span<const float> logits);

// Draws on the host, with weights in double. Not thread-safe: it keeps scratch memory.
class TokenDrawer {
 public:
  // logits [V]; -1 as BestToken.
  int32_t Draw(std::span<const float> logits, const DrawParams& params);

 private:
  struct Candidate {
    int32_t id;
    double weight;  // exp((logit - max) / temperature)
  };

  void KeepTopK(int32_t k);
  void KeepTopP(double p);
  void KeepMinP(double p);
  int32_t Pick(double uniform) const;

  std::vector<Candidate> candidates_;
};

}  // namespace kvasir
