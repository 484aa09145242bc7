// Backends that stand before another one: WrappedBackend hands every call on; FailingBackend fails
// where a test says, as a card does.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "kernels/core/backend.h"

namespace kvasir::test {

class WrappedBackend : public Backend {
 public:
  explicit WrappedBackend(std::shared_ptr<Backend> inner) : inner_(std::move(inner)) {}

  std::string_view name() const override { return inner_->name(); }
  std::string device() const override { return inner_->device(); }
  Status status() const override { return inner_->status(); }
  Result<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    return inner_->Allocate(bytes);
  }
  void Upload(const void* host, void* device, size_t bytes) override {
    inner_->Upload(host, device, bytes);
  }
  void Download(const void* device, void* host, size_t bytes) override {
    inner_->Download(device, host, bytes);
  }
  Result<std::unique_ptr<PackedWeight>> Pack(DType dtype, const void* data, int64_t n,
                                             int64_t k) override {
    return inner_->Pack(dtype, data, n, k);
  }
  Status Prepare(std::span<const PackedWeight* const> weights, int64_t most_rows) override {
    return inner_->Prepare(weights, most_rows);
  }
  using Backend::CreateKvPool;
  Result<std::unique_ptr<KvPool>> CreateKvPool(const KvLayout& layout, int32_t blocks,
                                               std::span<const float> key_balance) override {
    return inner_->CreateKvPool(layout, blocks, key_balance);
  }
  void CopyBlock(KvPool& pool, int32_t from, int32_t to) override {
    inner_->CopyBlock(pool, from, to);
  }
  Status LoadKv(KvPool& pool, int32_t layer, const KvLayerPlanes& planes,
                std::span<const int32_t> block_ids, const RopeTable* rope) override {
    return inner_->LoadKv(pool, layer, planes, block_ids, rope);
  }
  void SaveKv(const TensorView& k, const TensorView& v, int32_t row_begin, int32_t row_end,
              float* host_k, float* host_v) override {
    inner_->SaveKv(k, v, row_begin, row_end, host_k, host_v);
  }
  Status ReadKv(const KvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
                int32_t tokens, float* host_k, float* host_v) override {
    return inner_->ReadKv(pool, layer, block_ids, tokens, host_k, host_v);
  }
  void BeginStep() override { inner_->BeginStep(); }
  void EndStep() override { inner_->EndStep(); }
  void Embed(const PackedWeight& table, std::span<const int32_t> token_ids, float scale,
             const TensorView& out) override {
    inner_->Embed(table, token_ids, scale, out);
  }
  void Norm(NormKind kind, const TensorView& x, int64_t width, const float* weight,
            const float* bias, float eps, const TensorView& out) override {
    inner_->Norm(kind, x, width, weight, bias, eps, out);
  }
  using Backend::MatMul;
  void MatMul(const TensorView& x, const PackedWeight& w, const float* bias, bool accumulate,
              const TensorView& out) override {
    inner_->MatMul(x, w, bias, accumulate, out);
  }
  void Activate(ActivationKind kind, const TensorView& gate, const TensorView& up,
                const TensorView& out) override {
    inner_->Activate(kind, gate, up, out);
  }
  void Add(const TensorView& x, const TensorView& y) override { inner_->Add(x, y); }
  void GatherRows(const TensorView& x, std::span<const int32_t> rows,
                  const TensorView& out) override {
    inner_->GatherRows(x, rows, out);
  }
  void AppendKv(KvPool& pool, int32_t layer, const TensorView& k, const TensorView& v,
                const StepBatch& batch, const RopeTable* rope) override {
    inner_->AppendKv(pool, layer, k, v, batch, rope);
  }
  std::unique_ptr<AttentionPlan> PlanAttention(const StepBatch& batch) override {
    return inner_->PlanAttention(batch);
  }
  void Attention(const AttentionArgs& args) override { inner_->Attention(args); }

 private:
  std::shared_ptr<Backend> inner_;
};

// What fails, and with it (Fail) the whole backend for good, or, if it was memory, until a step
// begins; of LoadKv and ReadKv the call alone. What a failed call should have fetched is garbage:
// nobody may use it. Any thread.
class FailingBackend final : public WrappedBackend {
 public:
  enum class Call { kNone, kNorm, kSaveKv, kDownload, kLoadKv, kReadKv };
  using WrappedBackend::WrappedBackend;

  // From now on `call` works `works` times, then fails with `why`.
  void Fail(Call call, int works, Status why) {
    const std::lock_guard lock(mutex_);
    call_ = call;
    left_ = works;
    why_ = std::move(why);
  }
  // Pools get kResourceExhausted.
  void LimitMemory() { no_memory_ = true; }

  Status status() const override {
    const std::lock_guard lock(mutex_);
    return error_;
  }
  Result<std::unique_ptr<KvPool>> CreateKvPool(const KvLayout& layout, int32_t blocks,
                                               std::span<const float> balance) override {
    if (no_memory_) return ResourceExhausted("the card has no memory for a pool");
    return WrappedBackend::CreateKvPool(layout, blocks, balance);
  }
  void BeginStep() override {
    const std::lock_guard lock(mutex_);
    if (IsLackOfMemory(error_)) error_ = Status::Ok();
  }
  void Norm(NormKind kind, const TensorView& x, int64_t width, const float* weight,
            const float* bias, float eps, const TensorView& out) override {
    if (Works(Call::kNorm)) WrappedBackend::Norm(kind, x, width, weight, bias, eps, out);
  }
  void Download(const void* device, void* host, size_t bytes) override {
    if (Works(Call::kDownload)) return WrappedBackend::Download(device, host, bytes);
    Garble(host, bytes);
  }
  Status LoadKv(KvPool& pool, int32_t layer, const KvLayerPlanes& planes,
                std::span<const int32_t> block_ids, const RopeTable* rope) override {
    KVASIR_RETURN_IF_ERROR(Try(Call::kLoadKv));
    return WrappedBackend::LoadKv(pool, layer, planes, block_ids, rope);
  }
  void SaveKv(const TensorView& k, const TensorView& v, int32_t row_begin, int32_t row_end,
              float* host_k, float* host_v) override {
    if (Works(Call::kSaveKv)) {
      return WrappedBackend::SaveKv(k, v, row_begin, row_end, host_k, host_v);
    }
    const auto rows = static_cast<size_t>(row_end - row_begin);
    Garble(host_k, rows * static_cast<size_t>(k.cols) * sizeof(float));
    Garble(host_v, rows * static_cast<size_t>(v.cols) * sizeof(float));
  }
  Status ReadKv(const KvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
                int32_t tokens, float* host_k, float* host_v) override {
    KVASIR_RETURN_IF_ERROR(Try(Call::kReadKv));
    return WrappedBackend::ReadKv(pool, layer, block_ids, tokens, host_k, host_v);
  }

 private:
  static void Garble(void* host, size_t bytes) {
    std::fill_n(static_cast<float*>(host), bytes / sizeof(float), 0.5F);
  }
  static bool IsLackOfMemory(const Status& status) {
    return status.code() == StatusCode::kResourceExhausted;
  }
  // Of calls that say themselves how they went: memory that does not suffice is theirs alone.
  Status Try(Call call) {
    const std::lock_guard lock(mutex_);
    if (!error_.ok() && !IsLackOfMemory(error_)) return error_;
    if (call != call_ || left_-- > 0) return Status::Ok();
    call_ = Call::kNone;
    if (!IsLackOfMemory(why_)) error_ = why_;
    return why_;
  }
  bool Works(Call call) {
    const std::lock_guard lock(mutex_);
    if (!error_.ok()) return false;
    if (call != call_ || left_-- > 0) return true;
    call_ = Call::kNone;
    error_ = why_;
    return false;
  }

  mutable std::mutex mutex_;
  Call call_ = Call::kNone;  // under mutex_, as all below
  int left_ = 0;
  Status why_, error_;
  bool no_memory_ = false;
};

}  // namespace kvasir::test
