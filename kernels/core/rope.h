// RoPE description: which dimensions turn, how they pair, at which frequencies.
//
// A rotation by p turns pair j by the angle p * inv_freq[j]. Rotations compose, which is why keys
// can lie in the pool at chunk-local positions while the query is turned by (its position - the
// segment's base). Angles are computed in double and only cos/sin are rounded: fp16 angles would
// give 18 % key error at offset 4,096.
#pragma once

#include <cstdint>
#include <vector>

namespace kvasir {

enum class RopePairing : uint8_t {
  kInterleaved,  // (2j, 2j+1): GGUF files of architecture llama
  kHalfSplit,    // (j, j + rotary_dims/2): Hugging Face order, qwen2, qwen3, gemma3
};

struct RopeTable {
  RopePairing pairing = RopePairing::kHalfSplit;
  int32_t rotary_dims = 0;       // the first rotary_dims of D turn; even; 0 = no RoPE
  std::vector<double> inv_freq;  // [rotary_dims / 2], scaling already applied
  float magnitude = 1.0f;        // factor on cos and sin of the *query* side and the key side
                                 // alike (YaRN); applied once per rotation

  // theta^(-2j/rotary_dims).
  static RopeTable Plain(RopePairing pairing, int32_t rotary_dims, double theta);

  // cos[j], sin[j] for j < rotary_dims/2 at `position` (any sign).
  void CosSin(int64_t position, float* cos, float* sin) const;
  // Turns x[D] in place.
  void Rotate(int64_t position, float* x) const;
};

}  // namespace kvasir
