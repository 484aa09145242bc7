// Tiny random models for tests: real GGUF files of every supported architecture.
#pragma once

#include <cstdint>
#include <string>

#include "engine/model/model_config.h"
#include "kernels/core/dtype.h"
#include "tests/engine/gguf_builder.h"

namespace kvasir::test {

struct TinyModelOptions {
  Architecture architecture = Architecture::kLlama;
  int32_t layers = 3;
  int32_t width = 64;  // a multiple of the weights' block (32, or 256 for K-quants)
  int32_t heads = 4;
  int32_t kv_heads = 2;
  int32_t head_dim = 16;   // heads * head_dim: a multiple of the block, too
  int32_t ffn_width = 96;  // likewise
  int32_t context = 4096;
  float theta = 10000.0F;
  int32_t window = 24;            // gemma3: sliding window of local layers
  int32_t window_pattern = 2;     // gemma3: every n-th layer is global; 0 = not in the file
  DType weights = DType::kF32;    // of the layers' matrices
  DType embedding = DType::kF32;  // of token_embd (and output)
  bool tied = true;               // no output.weight
  bool llama3_factors = false;    // with rope_freqs.weight
  uint64_t seed = 1;              // same options, same bytes
};

// The vocabulary (model "gpt2", pre "gpt-2"): ids 0 to 2 are the control tokens <|endoftext|>,
// <|im_start|>, <|im_end|> (BOS 1, EOS 2); 3 to 258 the 256 bytes in byte order in GPT-2's
// spelling; then pairs with their merges.
inline constexpr int32_t kTinyVocabulary = 300;
inline constexpr int32_t kTinyFirstByte = 3;

// Everything but the tensors; for tests that damage a file.
GgufBuilder TinyModelBuilder(const TinyModelOptions& options);
// The tensors, to be added to a builder that holds any metadata.
void AddTinyTensors(const TinyModelOptions& options, GgufBuilder& file);
std::string TinyModelBytes(const TinyModelOptions& options);
// The path of a file in the test's temporary folder.
std::string WriteTinyModel(const TinyModelOptions& options);

// Random blocks of any dtype but kI8 whose values are about uniform with mean 0 and standard
// deviation `deviation`; `elements` a multiple of the block.
std::string RandomTensorData(DType dtype, int64_t elements, float deviation, uint64_t seed);

}  // namespace kvasir::test
