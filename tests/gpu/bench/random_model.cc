#include "tests/gpu/bench/random_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/core/dtype.h"
#include "tests/gpu/bench/card.h"

namespace kvasir::bench {
namespace {

constexpr int kStarts = 16;

void FillBf16(float deviation, std::vector<uint8_t>* data) {
  const float reach = deviation * std::sqrt(3.0f);
  for (size_t i = 0; i + 1 < data->size(); i += 2) {
    uint16_t bits;
    std::memcpy(&bits, data->data() + i, sizeof bits);
    bits = F32ToBF16(reach * (static_cast<float>(bits) * 0x1p-15f - 1.0f));
    std::memcpy(data->data() + i, &bits, sizeof bits);
  }
}

// Blocks of 18 bytes: an fp16 scale, then 32 values of -8 to 7 of deviation 4.6.
void FillQ4(float deviation, std::vector<uint8_t>* data) {
  const uint16_t scale = F32ToF16(deviation / 4.6f);
  for (size_t i = 0; i + 18 <= data->size(); i += 18) {
    std::memcpy(data->data() + i, &scale, sizeof scale);
  }
}

class ModelMaker {
 public:
  ModelMaker(const ModelShape& shape, DType weights, Backend& backend)
      : shape_(shape),
        weights_(weights),
        backend_(backend),
        bank_(weights, Largest(shape), 1.0f / std::sqrt(static_cast<float>(shape.width)), 5) {}

  Result<std::shared_ptr<const Model>> Make() {
    auto model = std::make_shared<Model>();
    model->config = Config();
    KVASIR_ASSIGN_OR_RETURN(model->embedding, Matrix(shape_.vocab, shape_.width));
    if (!shape_.tied) {
      KVASIR_ASSIGN_OR_RETURN(model->output, Matrix(shape_.vocab, shape_.width));
    }
    KVASIR_ASSIGN_OR_RETURN(model->output_norm, Ones());
    for (int32_t layer = 0; layer < shape_.layers; ++layer) {
      KVASIR_ASSIGN_OR_RETURN(LayerWeights made, Layer());
      model->layers.push_back(std::move(made));
    }
    return std::shared_ptr<const Model>(std::move(model));
  }

 private:
  static int64_t Largest(const ModelShape& s) {
    return int64_t{s.width} * std::max(s.vocab, s.ffn_width);
  }

  ModelConfig Config() const {
    ModelConfig config;
    config.name = shape_.name;
    config.layers = shape_.layers;
    config.width = shape_.width;
    config.heads = shape_.heads;
    config.kv_heads = shape_.kv_heads;
    config.head_dim = shape_.head_dim;
    config.ffn_width = shape_.ffn_width;
    config.vocab = shape_.vocab;
    config.context = kBenchContext;
    config.attention_scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
    config.ropes = {RopeTable::Plain(RopePairing::kInterleaved, shape_.head_dim, shape_.theta)};
    config.layer_rope.assign(static_cast<size_t>(shape_.layers), 0);
    config.layer_window.assign(static_cast<size_t>(shape_.layers), 0);
    return config;
  }

  Result<std::unique_ptr<PackedWeight>> Matrix(int64_t n, int64_t k) {
    return backend_.Pack(weights_, bank_.At(made_++), n, k);
  }

  Result<std::unique_ptr<Buffer>> Ones() {
    const std::vector<float> ones(static_cast<size_t>(shape_.width), 1.0f);
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Buffer> buffer,
                            backend_.Allocate(ones.size() * sizeof(float)));
    backend_.Upload(ones.data(), buffer->data(), ones.size() * sizeof(float));
    return buffer;
  }

  Result<LayerWeights> Layer() {
    const int64_t e = shape_.width, f = shape_.ffn_width;
    const int64_t q = int64_t{shape_.heads} * shape_.head_dim;
    const int64_t kv = int64_t{shape_.kv_heads} * shape_.head_dim;
    LayerWeights layer;
    KVASIR_ASSIGN_OR_RETURN(layer.attn_norm, Ones());
    KVASIR_ASSIGN_OR_RETURN(layer.ffn_norm, Ones());
    KVASIR_ASSIGN_OR_RETURN(layer.q, Matrix(q, e));
    KVASIR_ASSIGN_OR_RETURN(layer.k, Matrix(kv, e));
    KVASIR_ASSIGN_OR_RETURN(layer.v, Matrix(kv, e));
    KVASIR_ASSIGN_OR_RETURN(layer.o, Matrix(e, q));
    KVASIR_ASSIGN_OR_RETURN(layer.gate, Matrix(f, e));
    KVASIR_ASSIGN_OR_RETURN(layer.up, Matrix(f, e));
    KVASIR_ASSIGN_OR_RETURN(layer.down, Matrix(e, f));
    return Result<LayerWeights>(std::move(layer));
  }

  const ModelShape& shape_;
  const DType weights_;
  Backend& backend_;
  const WeightBank bank_;
  int made_ = 0;
};

std::vector<const PackedWeight*> MatricesOf(const Model& model) {
  std::vector<const PackedWeight*> all = {&model.OutputHead()};
  for (const LayerWeights& w : model.layers) {
    for (const auto* matrix : {&w.q, &w.k, &w.v, &w.o, &w.gate, &w.up, &w.down}) {
      all.push_back(matrix->get());
    }
  }
  return all;
}

}  // namespace

WeightBank::WeightBank(DType dtype, int64_t values, float deviation, uint64_t seed)
    : shift_(BytesOf(dtype, 64)) {
  data_.resize(BytesOf(dtype, static_cast<size_t>(values)) + kStarts * shift_);
  FillRandom(seed, data_.data(), data_.size());
  KVASIR_CHECK(dtype == DType::kBF16 || dtype == DType::kQ4_0);
  (dtype == DType::kBF16 ? FillBf16 : FillQ4)(deviation, &data_);
}

const void* WeightBank::At(int index) const {
  return data_.data() + static_cast<size_t>(index % kStarts) * shift_;
}

std::vector<float> RandomValues(int64_t count, uint64_t seed) {
  std::vector<uint32_t> bits(static_cast<size_t>(count));
  FillRandom(seed, bits.data(), bits.size() * sizeof(uint32_t));
  std::vector<float> values;
  values.reserve(bits.size());
  for (const uint32_t b : bits) values.push_back(static_cast<float>(b >> 8) * 0x1p-23f - 1.0f);
  return values;
}

ModelShape TinyShape() { return {"tiny", 2, 64, 2, 1, 64, 128, 96, false}; }
ModelShape SmolShape() { return {"SmolLM2-135M", 30, 576, 9, 3, 64, 1536, 49152, true, 100000}; }
ModelShape LlamaShape() {
  return {"Llama-3-8B", 32, 4096, 32, 8, 128, 14336, 128256, false, 500000};
}

Result<std::shared_ptr<const Model>> MakeRandomModel(const ModelShape& shape, DType weights,
                                                     Backend& backend) {
  return ModelMaker(shape, weights, backend).Make();
}

double ProductBytes(const Model& model) {
  double bytes = 0;
  for (const PackedWeight* weight : MatricesOf(model))
    bytes += static_cast<double>(weight->bytes());
  return bytes;
}

double PrefillWork(const Model& model, int64_t tokens) {
  const ModelConfig& c = model.config;
  const auto rows = static_cast<double>(tokens);
  double work = 2.0 * c.vocab * c.width;  // one row's logits
  for (const PackedWeight* weight : MatricesOf(model)) {
    if (weight == &model.OutputHead()) continue;
    work += 2.0 * rows * static_cast<double>(weight->outputs() * weight->inputs());
  }
  return work + 4.0 * c.layers * c.heads * c.head_dim * rows * (rows + 1) / 2;
}

double KvBytesPerToken(const ModelConfig& config) {
  return 2.0 * static_cast<double>(config.Layout(DType::kBF16).ValuesPerToken());
}

}  // namespace kvasir::bench
