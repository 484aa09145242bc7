// Decoders of a known shape with seeded random weights, without a file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/model.h"

namespace kvasir::bench {

// Random weights of a type: `values` of them from any of a few starts, so that a model of billions
// is made in seconds. About uniform with this standard deviation.
class WeightBank {
 public:
  WeightBank(DType dtype, int64_t values, float deviation, uint64_t seed);
  // The same numbers for the same index; others share most of them, shifted.
  const void* At(int index) const;

 private:
  std::vector<uint8_t> data_;
  size_t shift_ = 0;  // bytes of whole blocks
};

// fp32, uniform in [-1, 1).
std::vector<float> RandomValues(int64_t count, uint64_t seed);

struct ModelShape {
  std::string name;
  int32_t layers = 0, width = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn_width = 0, vocab = 0;
  bool tied = true;
  double theta = 10000;
};
ModelShape TinyShape();   // for the emulation
ModelShape SmolShape();   // SmolLM2-135M
ModelShape LlamaShape();  // Llama-3-8B

constexpr int32_t kBenchContext = 65536;

Result<std::shared_ptr<const Model>> MakeRandomModel(const ModelShape& shape, DType weights,
                                                     Backend& backend);

// Weights that a token's products read, in bytes as packed: all but the table of embeddings, unless
// it is the output head, too.
double ProductBytes(const Model& model);
// Multiplications and additions of a prompt of so many tokens: products, and attention over the
// keys before each.
double PrefillWork(const Model& model, int64_t tokens);
// Bytes of KV of one token in a bf16 pool.
double KvBytesPerToken(const ModelConfig& config);

}  // namespace kvasir::bench
