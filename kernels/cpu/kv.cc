#include "kernels/cpu/kv.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/shape_checks.h"
#include "kernels/core/status.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/kv_ops.h"
#include "kernels/cpu/kv_pool.h"

namespace kvasir {
namespace {

static_assert(kTileSlots == kBlockTokens);

CpuKvPool& PoolOf(KvPool& pool) { return static_cast<CpuKvPool&>(pool); }
const CpuKvPool& PoolOf(const KvPool& pool) { return static_cast<const CpuKvPool&>(pool); }

// Writes rows [begin, end) of a step.
void AppendRows(const KvOps& ops, const CpuKvPool& pool, int32_t layer, const TensorView& k,
                const TensorView& v, const StepBatch& batch, const Rotations& rotations,
                int64_t begin, int64_t end) {
  const int64_t head_dim = pool.layout().head_dim;
  for (int64_t row = begin; row < end; ++row) {
    const auto r = static_cast<size_t>(row);
    const Rotation rotation = rotations.At(batch.local_positions[r]);
    const int32_t block = batch.slots[r] / kBlockTokens, slot = batch.slots[r] % kBlockTokens;
    for (int32_t head = 0; head < pool.layout().kv_heads; ++head) {
      ops.store_token(pool.tile(layer, head), slot, k.f32_row(row) + head * head_dim,
                      v.f32_row(row) + head * head_dim, rotation, pool.K(layer, block, head),
                      pool.V(layer, block, head));
    }
  }
}

KvGrid At(const KvGrid& grid, int64_t index) { return {grid.step + index, grid.low + index}; }

// Tokens [first, first + 16) of one head of a chunk's layer.
KvTokens TokensOf(const KvLayerPlanes& planes, const KvLayout& layout, int32_t first,
                  int32_t head) {
  const int64_t heads = layout.kv_heads, head_dim = layout.head_dim;
  const int64_t begin = (first * heads + head) * head_dim;
  const size_t at = BytesOf(planes.dtype, static_cast<size_t>(begin));
  KvTokens tokens;
  tokens.dtype = planes.dtype;
  tokens.tokens = std::min(planes.tokens - first, kTileSlots);
  tokens.k = static_cast<const char*>(planes.k) + at;
  tokens.v = static_cast<const char*>(planes.v) + at;
  tokens.stride = heads * head_dim;
  tokens.scale_stride = heads;
  if (planes.dtype == DType::kI8) {
    tokens.k_scale = planes.k_scale + head * head_dim;
    tokens.v_scale = planes.v_scale + first * heads + head;
  } else if (planes.dtype == DType::kI4) {
    const int64_t group = first / kInt4GroupTokens;
    tokens.k_grid = At(planes.k_grid, (group * heads + head) * head_dim);
    tokens.v_grid = At(planes.v_grid, first * heads + head);
  }
  return tokens;
}

float ValueAt(const KvTile& tile, const char* bytes, int64_t index, float scale) {
  switch (tile.form) {
    case KvForm::kF32:
      return reinterpret_cast<const float*>(bytes)[index];
    case KvForm::kBf16:
      return BF16ToF32(reinterpret_cast<const uint16_t*>(bytes)[index]);
    case KvForm::kI8:
      break;
  }
  return scale * static_cast<float>(reinterpret_cast<const int8_t*>(bytes)[index]);
}

float KeyAt(const KvTile& tile, const char* k, int32_t slot, int32_t d) {
  if (tile.form != KvForm::kI8) return ValueAt(tile, k, tile.KIndex(slot, d), 1.0f);
  const float scale = tile.KScales(k)[d / kKeyScaleDims * kTileSlots + slot];
  const float balance = tile.key_balance != nullptr ? tile.key_balance[d] : 1.0f;
  return ValueAt(tile, k, tile.KIndex(slot, d), scale) * balance;
}

float ValueAt(const KvTile& tile, const char* v, int32_t slot, int32_t d) {
  const bool scaled = tile.form == KvForm::kI8;
  return ValueAt(tile, v, tile.VIndex(slot, d), scaled ? tile.VScales(v)[slot] : 1.0f);
}

KvForm FormOf(DType dtype) {
  if (dtype == DType::kF32) return KvForm::kF32;
  return dtype == DType::kBF16 ? KvForm::kBf16 : KvForm::kI8;
}

}  // namespace

Result<std::unique_ptr<CpuKvPool>> CpuKvPool::Create(const KvLayout& layout, int32_t blocks,
                                                     std::span<const float> key_balance) {
  KVASIR_RETURN_IF_ERROR(CheckPoolShape(layout, blocks));
  auto pool = std::make_unique<CpuKvPool>();
  pool->layout_ = layout;
  pool->blocks_ = blocks;
  pool->tile_ = {FormOf(layout.dtype), layout.head_dim, (layout.head_dim + 15) / 16 * 16};
  if (layout.dtype == DType::kI8 && !key_balance.empty()) pool->SetKeyBalance(key_balance);
  size_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<size_t>(pool->block_bytes()),
                             static_cast<size_t>(layout.layers), &bytes) ||
      __builtin_mul_overflow(bytes, static_cast<size_t>(blocks), &bytes)) {
    return ResourceExhausted("KV pool: larger than the address space");
  }
  KVASIR_ASSIGN_OR_RETURN(pool->memory_, AlignedMemory::Allocate(bytes));
  return pool;
}

void CpuKvPool::SetKeyBalance(std::span<const float> key_balance) {
  KVASIR_CHECK(key_balance.size() == static_cast<size_t>(layout_.KeyChannels()));
  key_balance_.assign(key_balance.begin(), key_balance.end());
  key_shares_.resize(key_balance.size());
  for (size_t i = 0; i < key_balance.size(); ++i) key_shares_[i] = 1.0f / key_balance[i];
}

KvTile CpuKvPool::tile(int32_t layer, int32_t head) const {
  KvTile tile = tile_;
  if (key_balance_.empty()) return tile;
  const int64_t at = (int64_t{layer} * layout_.kv_heads + head) * layout_.head_dim;
  tile.key_balance = key_balance_.data() + at;
  tile.key_shares = key_shares_.data() + at;
  return tile;
}

const KvOps& KvOpsFor(Isa isa) {
  KVASIR_CHECK(isa != Isa::kAuto);
  if (isa == Isa::kAvx512) return kKvAvx512;
  return isa == Isa::kAvx2 ? kKvAvx2 : kKvScalar;
}

Result<std::unique_ptr<KvPool>> CreateCpuKvPool(const KvLayout& layout, int32_t blocks,
                                                std::span<const float> key_balance) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<KvPool> pool,
                          CpuKvPool::Create(layout, blocks, key_balance));
  return pool;
}

void CpuCopyBlock(KvPool& pool, int32_t from, int32_t to) {
  const CpuKvPool& cpu = PoolOf(pool);
  if (from == to) return;
  for (int32_t layer = 0; layer < pool.layout().layers; ++layer) {
    std::memcpy(cpu.Block(layer, to), cpu.Block(layer, from),
                static_cast<size_t>(cpu.block_bytes()));
  }
}

void CpuLoadKv(const KvOps& ops, KvPool& pool, int32_t layer, const KvLayerPlanes& planes,
               std::span<const int32_t> block_ids, const RopeTable* rope) {
  const CpuKvPool& cpu = PoolOf(pool);
  KVASIR_CHECK(planes.dtype == DType::kF32 || planes.dtype == DType::kF16 ||
               planes.dtype == DType::kI8 || planes.dtype == DType::kI4);
  KVASIR_CHECK(block_ids.size() >= static_cast<size_t>(BlocksFor(planes.tokens)));
  const auto rotations = cpu.RotationsFor(rope, planes.tokens);
  alignas(64) float scratch[kTileSlots * kMaxHeadDim];
  for (int32_t first = 0; first < planes.tokens; first += kTileSlots) {
    Rotation turns[kTileSlots];
    const int32_t count = std::min(planes.tokens - first, kTileSlots);
    for (int32_t t = 0; t < count; ++t) turns[t] = rotations->At(first + t);
    const int32_t block = block_ids[static_cast<size_t>(first / kTileSlots)];
    for (int32_t head = 0; head < pool.layout().kv_heads; ++head) {
      ops.load_tile(cpu.tile(layer, head), TokensOf(planes, pool.layout(), first, head), turns,
                    scratch, cpu.K(layer, block, head), cpu.V(layer, block, head));
    }
  }
}

void CpuSaveKv(const TensorView& k, const TensorView& v, int32_t row_begin, int32_t row_end,
               float* host_k, float* host_v) {
  KVASIR_CHECK(row_begin >= 0 && row_begin <= row_end && row_end <= k.rows && row_end <= v.rows);
  const auto k_bytes = static_cast<size_t>(k.cols) * sizeof(float);
  const auto v_bytes = static_cast<size_t>(v.cols) * sizeof(float);
  for (int64_t row = row_begin; row < row_end; ++row) {
    std::memcpy(host_k + (row - row_begin) * k.cols, k.f32_row(row), k_bytes);
    std::memcpy(host_v + (row - row_begin) * v.cols, v.f32_row(row), v_bytes);
  }
}

void CpuReadKv(const KvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
               int32_t tokens, float* host_k, float* host_v) {
  const CpuKvPool& cpu = PoolOf(pool);
  KVASIR_CHECK(block_ids.size() >= static_cast<size_t>(BlocksFor(tokens)));
  for (int32_t token = 0; token < tokens; ++token) {
    const int32_t block = block_ids[static_cast<size_t>(token / kTileSlots)];
    const int32_t slot = token % kTileSlots;
    for (int32_t head = 0; head < pool.layout().kv_heads; ++head) {
      const KvTile tile = cpu.tile(layer, head);
      const char* k = cpu.K(layer, block, head);
      const char* v = cpu.V(layer, block, head);
      for (int32_t d = 0; d < tile.head_dim; ++d) {
        *host_k++ = KeyAt(tile, k, slot, d);
        *host_v++ = ValueAt(tile, v, slot, d);
      }
    }
  }
}

void CpuAppendKv(const KvOps& ops, ThreadPool& threads, KvPool& pool, int32_t layer,
                 const TensorView& k, const TensorView& v, const StepBatch& batch,
                 const RopeTable* rope) {
  const CpuKvPool& cpu = PoolOf(pool);
  const int64_t rows = k.rows, width = int64_t{pool.layout().kv_heads} * pool.layout().head_dim;
  KVASIR_CHECK(rows == batch.rows() && v.rows == rows && k.cols == width && v.cols == width);
  if (rows == 0) return;
  const int32_t last =
      *std::max_element(batch.local_positions.begin(), batch.local_positions.end());
  const auto rotations = cpu.RotationsFor(rope, int64_t{last} + 1);
  constexpr int64_t kWorthSplitting = 16 * 1024;  // values, about 15 us
  if (threads.threads() == 1 || rows < 4 || rows * width < kWorthSplitting) {
    AppendRows(ops, cpu, layer, k, v, batch, *rotations, 0, rows);
    return;
  }
  const int64_t tasks = std::min<int64_t>(rows, 4 * int64_t{threads.threads()});
  threads.ParallelFor(tasks, [&](int64_t task, int) {
    AppendRows(ops, cpu, layer, k, v, batch, *rotations, rows * task / tasks,
               rows * (task + 1) / tasks);
  });
}

}  // namespace kvasir
