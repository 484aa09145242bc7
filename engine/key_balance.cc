#include "engine/key_balance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/model/forward.h"

namespace kvasir {
namespace {

constexpr int32_t kMostIds = 256;
// Of the largest balance of a head: a dimension that the text hardly moved may move later.
constexpr float kLeastShare = 1e-2f;

// One sequence of `ids` from position 0 on, in the first blocks of a pool.
StepBatch BatchOf(std::span<const int32_t> ids) {
  const auto count = static_cast<int32_t>(ids.size());
  StepBatch batch;
  batch.token_ids.assign(ids.begin(), ids.end());
  batch.positions.resize(ids.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.local_positions = batch.slots = batch.positions;
  batch.block_table.resize(static_cast<size_t>(BlocksFor(count)));
  std::iota(batch.block_table.begin(), batch.block_table.end(), 0);
  batch.segments = {{0, count, 0}};
  batch.sequences = {{0, count, 0, 1}};
  batch.logit_rows = {count - 1};
  return batch;
}

// The keys of `ids` in every layer, before RoPE.
Result<KvCapture> KeysOf(const Model& model, Backend& backend, std::span<const int32_t> ids) {
  const auto count = static_cast<int32_t>(ids.size());
  const KvLayout layout = model.config.Layout(DType::kBF16);
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<KvPool> pool,
                          backend.CreateKvPool(layout, BlocksFor(count), {}));
  KvCapture capture = KvCapture::For(layout, count);
  Workspace workspace(backend);
  std::vector<float> logits;
  KVASIR_RETURN_IF_ERROR(
      Forward(model, *pool, BatchOf(ids), workspace, {{{&capture, 0, count, 0}}, {}, 0}, &logits));
  return capture;
}

// The other dimension of d's rotary pair; d itself if it does not turn.
int32_t PartnerOf(const RopeTable& rope, int32_t d) {
  if (d >= rope.rotary_dims) return d;
  if (rope.pairing == RopePairing::kInterleaved) return d ^ 1;
  const int32_t half = rope.rotary_dims / 2;
  return d < half ? d + half : d - half;
}

// balance [D] of one head; keys: its first token's, one every `stride` floats.
void BalanceHead(const RopeTable& rope, const float* keys, int32_t tokens, size_t stride,
                 std::span<float> balance) {
  for (size_t d = 0; d < balance.size(); ++d) {
    const auto partner = static_cast<size_t>(PartnerOf(rope, static_cast<int32_t>(d)));
    double sum = 0;
    for (int32_t t = 0; t < tokens; ++t) {
      const float* key = keys + static_cast<size_t>(t) * stride;
      sum += partner == d ? std::abs(key[d]) : std::hypot(key[d], key[partner]);
    }
    balance[d] = static_cast<float>(std::sqrt(sum / tokens));
  }
  const float top = *std::max_element(balance.begin(), balance.end());
  const bool usable = std::isfinite(top) && top > 0;
  // In this order max takes the share where a value is NaN.
  for (float& value : balance) value = usable ? std::max(top * kLeastShare, value) : 1.0f;
}

// Ids from all over the vocabulary, in an order without neighbours.
std::vector<int32_t> SpreadIds(int32_t vocab) {
  constexpr int64_t kStride = 1000003;  // a prime
  std::vector<int32_t> ids(static_cast<size_t>(std::min(kMostIds, vocab)));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>((static_cast<int64_t>(i) + 1) * kStride % vocab);
  }
  return ids;
}

}  // namespace

Result<std::vector<float>> MeasureKeyBalance(const Model& model, Backend& backend,
                                             std::span<const int32_t> ids) {
  const ModelConfig& config = model.config;
  const size_t most = static_cast<size_t>(std::min(kMostIds, config.context));
  KVASIR_ASSIGN_OR_RETURN(const KvCapture keys,
                          KeysOf(model, backend, ids.first(std::min(ids.size(), most))));
  const auto dim = static_cast<size_t>(config.head_dim);
  const size_t heads = static_cast<size_t>(config.kv_heads), width = heads * dim;
  std::vector<float> balance(static_cast<size_t>(config.layers) * width);
  for (size_t layer = 0; layer < static_cast<size_t>(config.layers); ++layer) {
    const auto rope = static_cast<size_t>(config.layer_rope[layer]);
    for (size_t head = 0; head < heads; ++head) {
      BalanceHead(config.ropes[rope], &keys.k[layer * keys.LayerStride() + head * dim], keys.tokens,
                  width, std::span(balance).subspan((layer * heads + head) * dim, dim));
    }
  }
  return balance;
}

Result<std::unique_ptr<KvPool>> MakeKvPool(const Model& model, Backend& backend, DType dtype,
                                           int32_t blocks, std::span<const int32_t> ids) {
  std::vector<float> balance;
  if (dtype == DType::kI8) {
    const std::vector<int32_t> spread = SpreadIds(model.config.vocab);
    KVASIR_ASSIGN_OR_RETURN(balance, MeasureKeyBalance(model, backend, ids.empty() ? spread : ids));
  }
  return backend.CreateKvPool(model.config.Layout(dtype), blocks, balance);
}

}  // namespace kvasir
