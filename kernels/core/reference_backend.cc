#include "kernels/core/reference_backend.h"

#include <cstring>
#include <new>
#include <vector>

#include "kernels/core/reference_attention.h"
#include "kernels/core/reference_operators.h"
#include "kernels/core/shape_checks.h"

namespace kvasir {
namespace {

using reference::ReferenceKvPool;

class ReferenceBuffer final : public Buffer {
 public:
  explicit ReferenceBuffer(size_t bytes) {
    const size_t rounded = (bytes + 63) / 64 * 64;
    data_ = std::aligned_alloc(64, rounded == 0 ? 64 : rounded);
    bytes_ = bytes;
  }
  ~ReferenceBuffer() override { std::free(data_); }
};

// fp32 [N][K], dequantised at once.
class ReferenceWeight final : public PackedWeight {
 public:
  ReferenceWeight(DType dtype, const void* data, int64_t n, int64_t k)
      : values_(static_cast<size_t>(n * k)) {
    const auto columns = static_cast<size_t>(k);
    const size_t row_bytes = BytesOf(dtype, columns);
    for (size_t row = 0; row < static_cast<size_t>(n); ++row) {
      DequantizeRow(dtype, static_cast<const char*>(data) + row * row_bytes, columns,
                    values_.data() + row * columns);
    }
    outputs_ = n;
    inputs_ = k;
    bytes_ = values_.size() * sizeof(float);
  }
  const std::vector<float>& values() const { return values_; }

 private:
  std::vector<float> values_;
};

ReferenceKvPool& PoolOf(KvPool& pool) { return static_cast<ReferenceKvPool&>(pool); }
const ReferenceKvPool& PoolOf(const KvPool& pool) {
  return static_cast<const ReferenceKvPool&>(pool);
}

class ReferenceBackend final : public Backend {
 public:
  std::string_view name() const override { return "reference"; }

  Result<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    std::unique_ptr<Buffer> buffer = std::make_unique<ReferenceBuffer>(bytes);
    if (buffer->data() == nullptr) {
      return ResourceExhausted("no memory for " + std::to_string(bytes) + " bytes");
    }
    return buffer;
  }
  void Upload(const void* host, void* device, size_t bytes) override {
    if (bytes != 0) std::memcpy(device, host, bytes);
  }
  void Download(const void* device, void* host, size_t bytes) override {
    if (bytes != 0) std::memcpy(host, device, bytes);
  }

  Result<std::unique_ptr<PackedWeight>> Pack(DType dtype, const void* data, int64_t n,
                                             int64_t k) override {
    KVASIR_RETURN_IF_ERROR(CheckWeightShape(dtype, n, k));
    return std::unique_ptr<PackedWeight>(std::make_unique<ReferenceWeight>(dtype, data, n, k));
  }

  Result<std::unique_ptr<KvPool>> CreateKvPool(const KvLayout& layout, int32_t blocks,
                                               std::span<const float> key_balance) override {
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<KvPool> pool,
                            ReferenceKvPool::Create(layout, blocks, key_balance));
    return pool;
  }
  void CopyBlock(KvPool& pool, int32_t from, int32_t to) override {
    reference::CopyBlock(PoolOf(pool), from, to);
  }
  Status LoadKv(KvPool& pool, int32_t layer, const KvLayerPlanes& planes,
                std::span<const int32_t> block_ids, const RopeTable* rope) override {
    reference::LoadKv(PoolOf(pool), layer, planes, block_ids, rope);
    return Status::Ok();
  }
  void SaveKv(const TensorView& k, const TensorView& v, int32_t row_begin, int32_t row_end,
              float* host_k, float* host_v) override {
    KVASIR_CHECK(row_begin >= 0 && row_begin <= row_end && row_end <= k.rows);
    for (int32_t row = row_begin; row < row_end; ++row) {
      const int64_t at = row - row_begin;
      std::memcpy(host_k + at * k.cols, k.f32_row(row), BytesOf(DType::kF32, Width(k)));
      std::memcpy(host_v + at * v.cols, v.f32_row(row), BytesOf(DType::kF32, Width(v)));
    }
  }
  Status ReadKv(const KvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
                int32_t tokens, float* host_k, float* host_v) override {
    reference::ReadKv(PoolOf(pool), layer, block_ids, tokens, host_k, host_v);
    return Status::Ok();
  }

  void Embed(const PackedWeight& table, std::span<const int32_t> token_ids, float scale,
             const TensorView& out) override {
    const auto& values = static_cast<const ReferenceWeight&>(table).values();
    KVASIR_CHECK(out.rows == static_cast<int64_t>(token_ids.size()));
    KVASIR_CHECK(out.cols == table.inputs());
    for (size_t row = 0; row < token_ids.size(); ++row) {
      KVASIR_CHECK(token_ids[row] >= 0 && token_ids[row] < table.outputs());
      const float* from = values.data() + token_ids[row] * table.inputs();
      float* to = out.f32_row(static_cast<int64_t>(row));
      for (int64_t i = 0; i < out.cols; ++i) to[i] = from[i] * scale;
    }
  }
  void Norm(NormKind kind, const TensorView& x, int64_t width, const float* weight,
            const float* bias, float eps, const TensorView& out) override {
    reference::Norm(kind, x, width, weight, bias, eps, out);
  }
  void MatMul(const TensorView& x, const PackedWeight& w, const float* bias, bool accumulate,
              const TensorView& out) override {
    KVASIR_CHECK(x.cols == w.inputs() && out.cols == w.outputs());
    reference::MatMul(x, static_cast<const ReferenceWeight&>(w).values(), bias, accumulate, out);
  }
  void Activate(ActivationKind kind, const TensorView& gate, const TensorView& up,
                const TensorView& out) override {
    reference::Activate(kind, gate, up, out);
  }
  void Add(const TensorView& x, const TensorView& y) override { reference::Add(x, y); }
  void GatherRows(const TensorView& x, std::span<const int32_t> rows,
                  const TensorView& out) override {
    reference::GatherRows(x, rows, out);
  }

  void AppendKv(KvPool& pool, int32_t layer, const TensorView& k, const TensorView& v,
                const StepBatch& batch, const RopeTable* rope) override {
    reference::AppendKv(PoolOf(pool), layer, k, v, batch, rope);
  }
  std::unique_ptr<AttentionPlan> PlanAttention(const StepBatch&) override {
    return std::make_unique<AttentionPlan>();  // it plans nothing
  }
  void Attention(const AttentionArgs& args) override { reference::Attention(args); }

  bool CanSample(int64_t) const override { return true; }
  void Sample(const TensorView& logits, std::span<const RowDraw> draws,
              std::span<int32_t> tokens) override {
    KVASIR_CHECK(draws.size() == tokens.size());
    for (size_t i = 0; i < draws.size(); ++i) {
      KVASIR_CHECK(draws[i].row >= 0 && draws[i].row < logits.rows);
      tokens[i] = drawer_.Draw({logits.f32_row(draws[i].row), Width(logits)}, draws[i].params);
    }
  }

 private:
  static size_t Width(const TensorView& view) { return static_cast<size_t>(view.cols); }

  TokenDrawer drawer_;
};

}  // namespace

std::unique_ptr<Backend> CreateReferenceBackend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace kvasir
