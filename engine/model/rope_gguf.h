// Reads a decoder's RoPE frequencies out of a GGUF file: plain, linear, llama3 (rope_freqs.weight)
// and YaRN. Frequencies that depend on the prompt's length are refused by name.
#pragma once

#include <string>

#include "engine/model/gguf.h"
#include "kernels/core/rope.h"
#include "kernels/core/status.h"

namespace kvasir {

struct RopeSource {
  std::string prefix;  // "llama." and so on
  RopePairing pairing = RopePairing::kHalfSplit;
  int32_t head_dim = 0;  // D
  int32_t context = 0;   // trained context, what YaRN stretches if the file does not say
};

// The table of full-attention layers, scaling applied.
Result<RopeTable> ReadRope(const GgufFile& file, const RopeSource& source);

}  // namespace kvasir
