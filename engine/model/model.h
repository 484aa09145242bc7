// Model: the weights of a decoder, packed for one backend, and the tables its tokenizer needs.
//
// Immutable after Load; shared between the engine and whoever reads the config. Must not outlive
// the backend it was packed for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "kernels/core/backend.h"
#include "kernels/core/status.h"

namespace kvasir {

struct LayerWeights {
  std::unique_ptr<Buffer> attn_norm, ffn_norm;            // [E]
  std::unique_ptr<Buffer> post_attn_norm, post_ffn_norm;  // [E], gemma3
  std::unique_ptr<Buffer> q_norm, k_norm;                 // [D], qwen3 and gemma3
  std::unique_ptr<Buffer> q_bias, k_bias, v_bias;         // [H*D], [G*D], [G*D], qwen2
  std::unique_ptr<PackedWeight> q, k, v, o;               // [H*D][E], [G*D][E] x2, [E][H*D]
  std::unique_ptr<PackedWeight> gate, up, down;           // [F][E] x2, [E][F]
};

// Raw vocabulary as the file gives it; engine/tokenizer turns it into a Tokenizer.
struct VocabularyData {
  std::string model;  // "gpt2", "llama", "bert", ...
  std::string pre;    // pre-tokenizer name, "" if absent
  std::vector<std::string> tokens;
  std::vector<float> scores;        // may be empty
  std::vector<int32_t> types;       // GGUF token types (1 normal, 2 unknown, 3 control,
                                    // 4 user-defined, 5 unused, 6 byte); may be empty
  std::vector<std::string> merges;  // "left right"
  int32_t bos = -1, eos = -1, unknown = -1, padding = -1;
  std::vector<int32_t> end_of_generation;  // eos, eot and the like, unique
  bool add_bos = false, add_eos = false, add_space_prefix = true;
  std::string chat_template;  // Jinja source, "" if absent
};

struct Model {
  ModelConfig config;
  VocabularyData vocabulary;
  std::string path;
  // Digest over the weights' bytes and everything that changes KV (32 hex digits): part of every
  // chunk's fingerprint. A swapped file under the same path changes it.
  std::string digest;

  std::unique_ptr<PackedWeight> embedding;  // [V][E]
  std::unique_ptr<PackedWeight> output;     // [V][E]; null = tied to `embedding`
  std::unique_ptr<Buffer> output_norm;      // [E]
  std::vector<LayerWeights> layers;

  const PackedWeight& OutputHead() const { return output ? *output : *embedding; }
  size_t WeightBytes() const;  // resident bytes as packed
};

// Reads a GGUF file (v2, v3) over mmap and packs its weights for `backend`. Every count, offset and
// size is checked before use; errors name the file, the field and what is supported.
Result<std::shared_ptr<const Model>> LoadGgufModel(const std::string& path, Backend& backend);

}  // namespace kvasir
