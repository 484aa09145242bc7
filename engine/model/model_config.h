// ModelConfig: geometry and numerics of a decoder, read from a model file and checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/core/kv_layout.h"
#include "kernels/core/rope.h"

namespace kvasir {

enum class Architecture : uint8_t { kLlama, kQwen2, kQwen3, kGemma3 };

// Whether chunk KV of this model may be moved to other positions (fusion.md 2).
struct ReusePolicy {
  bool movable = true;
  std::string why_not;  // named in the error when a fused mode is asked for
};

struct ModelConfig {
  Architecture architecture = Architecture::kLlama;
  std::string name;       // general.name or the file's stem
  int32_t layers = 0;     // L
  int32_t width = 0;      // E
  int32_t heads = 0;      // H
  int32_t kv_heads = 0;   // G
  int32_t head_dim = 0;   // D
  int32_t ffn_width = 0;  // F
  int32_t vocab = 0;      // V
  int32_t context = 0;    // tokens the model was trained for
  float norm_eps = 1e-5f;
  float embed_scale = 1.0f;      // gemma: sqrt(E)
  float attention_scale = 0.0f;  // 1/sqrt(D) unless the architecture says otherwise
  ActivationKind activation = ActivationKind::kSilu;
  bool qk_norm = false;             // qwen3, gemma3: before RoPE
  bool post_norms = false;          // gemma3: sandwich norms on attention and feed-forward outputs
  std::vector<RopeTable> ropes;     // distinct tables
  std::vector<int32_t> layer_rope;  // [L] index into ropes
  std::vector<int32_t> layer_window;  // [L] sliding window, 0 = full attention
  ReusePolicy reuse;

  KvLayout Layout(DType dtype) const { return {layers, kv_heads, head_dim, dtype}; }
};

}  // namespace kvasir
