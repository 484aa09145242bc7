#include "kernels/core/reference_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/core/shape_checks.h"
#include "kernels/core/status.h"

namespace kvasir::reference {
namespace {

// Turns x[D] by `position`, all in double.
void RotateDouble(const RopeTable& rope, int64_t position, double* x) {
  const size_t half = rope.inv_freq.size();
  const bool interleaved = rope.pairing == RopePairing::kInterleaved;
  for (size_t j = 0; j < half; ++j) {
    const double angle = static_cast<double>(position) * rope.inv_freq[j];
    const double c = std::cos(angle) * rope.magnitude, s = std::sin(angle) * rope.magnitude;
    double& first = x[interleaved ? 2 * j : j];
    double& second = x[interleaved ? 2 * j + 1 : j + half];
    const double a = first, b = second;
    first = a * c - b * s;
    second = a * s + b * c;
  }
}

int64_t SlotOf(std::span<const int32_t> block_ids, int32_t token) {
  return int64_t{block_ids[static_cast<size_t>(token / kBlockTokens)]} * kBlockTokens +
         token % kBlockTokens;
}

// Writes one token's keys (turned to `position`) and values, [G][D] each.
void WriteToken(ReferenceKvPool& pool, int32_t layer, int64_t slot, const float* k, const float* v,
                const RopeTable* rope, int64_t position) {
  const int32_t head_dim = pool.layout().head_dim;
  float* to_k = pool.K(layer, slot);
  float* to_v = pool.V(layer, slot);
  std::vector<double> key(static_cast<size_t>(head_dim));
  for (int32_t g = 0; g < pool.layout().kv_heads; ++g) {
    std::copy_n(k + int64_t{g} * head_dim, head_dim, key.begin());
    if (rope != nullptr) RotateDouble(*rope, position, key.data());
    const int64_t at = int64_t{g} * head_dim;
    for (int32_t d = 0; d < head_dim; ++d) {
      to_k[at + d] = static_cast<float>(key[static_cast<size_t>(d)]);
      to_v[at + d] = v[at + d];
    }
    pool.RoundKey(layer, g, to_k + at);
    pool.Round(to_v + at, head_dim);
  }
}

// Element `index` of a plane; values of kI8 and kI4 come back unscaled.
float PlaneValue(DType dtype, const void* plane, size_t index) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(plane)[index];
    case DType::kF16:
      return F16ToF32(static_cast<const uint16_t*>(plane)[index]);
    case DType::kI8:
      return static_cast<const int8_t*>(plane)[index];
    case DType::kI4:
      return static_cast<float>(static_cast<const uint8_t*>(plane)[index / 2] >> (index % 2 * 4) &
                                15);
    default:
      KVASIR_CHECK(!"dtype of KvLayerPlanes");
      return 0;
  }
}

// The same with its scale (kI8) or its grid (kI4).
float Scaled(DType dtype, const void* plane, size_t index, const float* scale, size_t scale_index,
             const KvGrid& grid, size_t grid_index) {
  const float value = PlaneValue(dtype, plane, index);
  if (dtype == DType::kI8) return value * scale[scale_index];
  if (dtype != DType::kI4) return value;
  return F16ToF32(grid.low[grid_index]) + value * F16ToF32(grid.step[grid_index]);
}

// One (row, query head): scores and values of every visible key.
class RowHead {
 public:
  RowHead(const AttentionArgs& args, const ReferenceKvPool& pool, const ContextScale& context,
          int64_t row, int32_t head)
      : args_(args),
        pool_(pool),
        context_(context),
        head_dim_(pool.layout().head_dim),
        position_(args.batch->positions[static_cast<size_t>(row)]),
        q_(args.q.f32_row(row) + int64_t{head} * head_dim_),
        out_(args.out.f32_row(row) + int64_t{head} * head_dim_) {
    const int64_t heads = args.q.cols / head_dim_;
    kv_offset_ = int64_t{head} / (heads / pool.layout().kv_heads) * head_dim_;
  }

  void AddSegment(const SegmentRef& segment) {
    std::vector<double> q(q_, q_ + head_dim_);
    if (args_.rope != nullptr) RotateDouble(*args_.rope, position_ - segment.base, q.data());
    const auto blocks =
        std::span(args_.batch->block_table).subspan(static_cast<size_t>(segment.first_block));
    for (int32_t j = 0; j < segment.length; ++j) {
      if (!Visible(int64_t{segment.base} + j)) continue;
      const int64_t slot = SlotOf(blocks, j);
      const float* key = pool_.K(args_.layer, slot) + kv_offset_;
      double score = 0;
      for (int64_t d = 0; d < head_dim_; ++d) score += q[static_cast<size_t>(d)] * key[d];
      score *= args_.scale;
      if (segment.context) {
        score /= context_.temperature;
        in_context_.push_back(scores_.size());
      }
      scores_.push_back(score);
      positions_.push_back(int64_t{segment.base} + j);
      values_.push_back(pool_.V(args_.layer, slot) + kv_offset_);
    }
  }

  // Writes the output; a row that sees no key gets zeros. mass [positions] of the head, or null.
  void Finish(float* mass) {
    ScaleContext();
    std::vector<double> sum(static_cast<size_t>(head_dim_), 0.0);
    double total = 0, top = -std::numeric_limits<double>::infinity();
    for (const double score : scores_) top = std::max(top, score);
    for (size_t i = 0; i < scores_.size(); ++i) {
      const double weight = scores_[i] = std::exp(scores_[i] - top);
      total += weight;
      for (size_t d = 0; d < sum.size(); ++d) sum[d] += weight * values_[i][d];
    }
    for (size_t d = 0; d < sum.size(); ++d) {
      out_[d] = scores_.empty() ? 0.0f : static_cast<float>(sum[d] / total);
    }
    if (mass == nullptr) return;
    for (size_t i = 0; i < scores_.size(); ++i) {
      mass[positions_[i]] += static_cast<float>(scores_[i] / total);
    }
  }

 private:
  // With S the context's log-sum-exp, every weight exp(score) of it becomes exp(score + (s - 1) S),
  // so that they sum to exp(s S).
  void ScaleContext() {
    double top = -std::numeric_limits<double>::infinity(), total = 0;
    for (const size_t i : in_context_) top = std::max(top, scores_[i]);
    for (const size_t i : in_context_) total += std::exp(scores_[i] - top);
    const double shift = (context_.scale - 1.0) * (top + std::log(total));
    for (const size_t i : in_context_) scores_[i] += shift;
  }
  bool Visible(int64_t key_position) const {
    return key_position <= position_ &&
           (args_.window == 0 || key_position > position_ - args_.window);
  }

  const AttentionArgs& args_;
  const ReferenceKvPool& pool_;
  const ContextScale& context_;
  int64_t head_dim_;
  int64_t position_;
  const float* q_;
  float* out_;
  int64_t kv_offset_ = 0;
  std::vector<double> scores_;  // weights, not yet divided by their sum, once finished
  std::vector<int64_t> positions_;
  std::vector<const float*> values_;
  std::vector<size_t> in_context_;  // indices of scores
};

// Where the weights of (row, head) go; null = they are not wanted.
float* MassOf(const AttentionArgs& args, int32_t row, int32_t head) {
  for (const MassRange& range : args.mass) {
    if (row >= range.row_begin && row < range.row_end) return range.mass + head * range.stride;
  }
  return nullptr;
}

}  // namespace

Result<std::unique_ptr<ReferenceKvPool>> ReferenceKvPool::Create(
    const KvLayout& layout, int32_t blocks, std::span<const float> key_balance) {
  KVASIR_RETURN_IF_ERROR(CheckPoolShape(layout, blocks));
  auto pool = std::make_unique<ReferenceKvPool>();
  pool->layout_ = layout;
  pool->blocks_ = blocks;
  pool->key_balance_.assign(key_balance.begin(), key_balance.end());
  if (key_balance.empty()) pool->key_balance_.assign(size_t(layout.KeyChannels()), 1.0f);
  KVASIR_CHECK(pool->key_balance_.size() == size_t(layout.KeyChannels()));
  const auto values = static_cast<size_t>(layout.ValuesPerToken()) * kBlockTokens;
  pool->values_.reset(
      static_cast<float*>(std::calloc(values * sizeof(float), static_cast<size_t>(blocks))));
  if (!pool->values_) return ResourceExhausted("KV pool: out of memory");
  return pool;
}

float* ReferenceKvPool::Row(int64_t plane, int64_t slot) const {
  const int64_t slots = int64_t{blocks_} * kBlockTokens;
  KVASIR_CHECK(plane >= 0 && plane < 2 * int64_t{layout_.layers} && slot >= 0 && slot < slots);
  return values_.get() + (plane * slots + slot) * row_width();
}

void ReferenceKvPool::Round(float* x, int64_t n) const {
  if (layout_.dtype == DType::kBF16) {
    for (int64_t i = 0; i < n; ++i) x[i] = BF16ToF32(F32ToBF16(x[i]));
  }
  if (layout_.dtype != DType::kI8) return;
  float top = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool finite = std::isfinite(x[i]);
    top = finite ? std::max(top, std::abs(x[i])) : std::numeric_limits<float>::infinity();
    if (!finite) break;
  }
  const Int8Scale scale = Int8ScaleOf(top);
  for (int64_t i = 0; i < n; ++i) x[i] = scale.scale * std::nearbyint(x[i] * scale.inverse);
}

void ReferenceKvPool::RoundKey(int32_t layer, int32_t head, float* key) const {
  const int64_t dim = layout_.head_dim;
  if (layout_.dtype != DType::kI8) return Round(key, dim);
  const float* balance = &key_balance_[size_t((int64_t{layer} * layout_.kv_heads + head) * dim)];
  for (int64_t d = 0; d < dim; ++d) key[d] /= balance[d];
  for (int64_t d = 0; d < dim; d += kKeyScaleDims) {
    Round(key + d, std::min<int64_t>(kKeyScaleDims, dim - d));
  }
  for (int64_t d = 0; d < dim; ++d) key[d] *= balance[d];
}

void CopyBlock(ReferenceKvPool& pool, int32_t from, int32_t to) {
  const auto bytes = static_cast<size_t>(pool.row_width() * kBlockTokens) * sizeof(float);
  const int64_t source = int64_t{from} * kBlockTokens, target = int64_t{to} * kBlockTokens;
  for (int32_t layer = 0; layer < pool.layout().layers; ++layer) {
    std::memmove(pool.K(layer, target), pool.K(layer, source), bytes);
    std::memmove(pool.V(layer, target), pool.V(layer, source), bytes);
  }
}

void LoadKv(ReferenceKvPool& pool, int32_t layer, const KvLayerPlanes& planes,
            std::span<const int32_t> block_ids, const RopeTable* rope) {
  KVASIR_CHECK(block_ids.size() >= static_cast<size_t>(BlocksFor(planes.tokens)));
  const auto head_dim = static_cast<size_t>(pool.layout().head_dim);
  const auto width = static_cast<size_t>(pool.row_width());
  std::vector<float> k(width), v(width);
  for (int32_t token = 0; token < planes.tokens; ++token) {
    const size_t begin = static_cast<size_t>(token) * width;
    const size_t group = static_cast<size_t>(token / kInt4GroupTokens) * width;
    for (size_t i = 0; i < width; ++i) {
      k[i] = Scaled(planes.dtype, planes.k, begin + i, planes.k_scale, i, planes.k_grid, group + i);
      const size_t row = (begin + i) / head_dim;
      v[i] = Scaled(planes.dtype, planes.v, begin + i, planes.v_scale, row, planes.v_grid, row);
    }
    WriteToken(pool, layer, SlotOf(block_ids, token), k.data(), v.data(), rope, token);
  }
}

void ReadKv(const ReferenceKvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
            int32_t tokens, float* host_k, float* host_v) {
  KVASIR_CHECK(block_ids.size() >= static_cast<size_t>(BlocksFor(tokens)));
  const int64_t width = pool.row_width();
  for (int32_t token = 0; token < tokens; ++token) {
    const int64_t slot = SlotOf(block_ids, token);
    std::copy_n(pool.K(layer, slot), width, host_k + token * width);
    std::copy_n(pool.V(layer, slot), width, host_v + token * width);
  }
}

void AppendKv(ReferenceKvPool& pool, int32_t layer, const TensorView& k, const TensorView& v,
              const StepBatch& batch, const RopeTable* rope) {
  KVASIR_CHECK(k.rows == batch.rows() && v.rows == batch.rows());
  KVASIR_CHECK(k.cols == pool.row_width() && v.cols == pool.row_width());
  for (int64_t row = 0; row < k.rows; ++row) {
    const auto r = static_cast<size_t>(row);
    WriteToken(pool, layer, batch.slots[r], k.f32_row(row), v.f32_row(row), rope,
               batch.local_positions[r]);
  }
}

void Attention(const AttentionArgs& args) {
  const auto& pool = static_cast<const ReferenceKvPool&>(*args.pool);
  const int64_t head_dim = pool.layout().head_dim;
  KVASIR_CHECK(args.q.cols % (head_dim * pool.layout().kv_heads) == 0);
  KVASIR_CHECK(args.out.rows == args.q.rows && args.out.cols == args.q.cols);
  KVASIR_CHECK(args.q.rows == args.batch->rows());
  CheckMassRanges(args.mass, *args.batch);
  const auto heads = static_cast<int32_t>(args.q.cols / head_dim);
  for (const SequenceSpan& sequence : args.batch->sequences) {
    for (int32_t row = sequence.row_begin; row < sequence.row_end; ++row) {
      for (int32_t head = 0; head < heads; ++head) {
        RowHead work(args, pool, sequence.context, row, head);
        for (int32_t s = sequence.segment_begin; s < sequence.segment_end; ++s) {
          work.AddSegment(args.batch->segments[static_cast<size_t>(s)]);
        }
        work.Finish(MassOf(args, row, head));
      }
    }
  }
}

}  // namespace kvasir::reference
