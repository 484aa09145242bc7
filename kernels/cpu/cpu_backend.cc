#include "kernels/cpu/cpu_backend.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/block_matmul.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/kv.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/sample.h"
#include "kernels/cpu/weight_arena.h"

namespace kvasir {
namespace {

class CpuBuffer : public Buffer {
 public:
  explicit CpuBuffer(AlignedMemory memory) : memory_(std::move(memory)) {
    data_ = memory_.data();
    bytes_ = memory_.bytes();
  }

 private:
  AlignedMemory memory_;
};

class CpuBackend : public Backend {
 public:
  CpuBackend(const CpuOps& ops, std::unique_ptr<ThreadPool> threads, MatrixMultiplier multiplier,
             std::optional<Int8Multiplier> int8, std::optional<Bf16Multiplier> bf16)
      : name_("cpu-" + std::string(IsaName(ops.isa)) + (int8.has_value() ? "-int8" : "")),
        ops_(ops),
        threads_(std::move(threads)),
        multiplier_(std::move(multiplier)),
        int8_(std::move(int8)),
        bf16_(std::move(bf16)),
        drawers_(static_cast<size_t>(threads_->threads()), RowDrawer(*ops.elementwise)) {}

  std::string_view name() const override { return name_; }

  Result<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    KVASIR_ASSIGN_OR_RETURN(AlignedMemory memory, AlignedMemory::Allocate(bytes));
    return std::unique_ptr<Buffer>(std::make_unique<CpuBuffer>(std::move(memory)));
  }
  void Upload(const void* host, void* device, size_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void Download(const void* device, void* host, size_t bytes) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }

  Result<std::unique_ptr<PackedWeight>> Pack(DType dtype, const void* data, int64_t n,
                                             int64_t k) override {
    KVASIR_ASSIGN_OR_RETURN(auto packed, PackMatrix(arena_, *threads_, dtype, data, n, k));
    return std::unique_ptr<PackedWeight>(std::move(packed));
  }

  Result<std::unique_ptr<KvPool>> CreateKvPool(const KvLayout& layout, int32_t blocks,
                                               std::span<const float> key_balance) override {
    return CreateCpuKvPool(layout, blocks, key_balance);
  }
  void CopyBlock(KvPool& pool, int32_t from, int32_t to) override { CpuCopyBlock(pool, from, to); }
  Status LoadKv(KvPool& pool, int32_t layer, const KvLayerPlanes& planes,
                std::span<const int32_t> block_ids, const RopeTable* rope) override {
    CpuLoadKv(*ops_.kv, pool, layer, planes, block_ids, rope);
    return Status::Ok();
  }
  void SaveKv(const TensorView& k, const TensorView& v, int32_t row_begin, int32_t row_end,
              float* host_k, float* host_v) override {
    CpuSaveKv(k, v, row_begin, row_end, host_k, host_v);
  }
  Status ReadKv(const KvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
                int32_t tokens, float* host_k, float* host_v) override {
    CpuReadKv(pool, layer, block_ids, tokens, host_k, host_v);
    return Status::Ok();
  }

  void Embed(const PackedWeight& table, std::span<const int32_t> token_ids, float scale,
             const TensorView& out) override {
    multiplier_.Embed(table, token_ids, scale, out);
  }
  void Norm(NormKind kind, const TensorView& x, int64_t width, const float* weight,
            const float* bias, float eps, const TensorView& out) override {
    CpuNorm(*ops_.elementwise, *threads_, kind, x, width, weight, bias, eps, out);
  }
  void MatMul(const TensorView& x, const PackedWeight& w, const float* bias, bool accumulate,
              const TensorView& out) override {
    const Projection projection{&w, bias, out};
    if (TakeAll(int8_, {&projection, 1})) {
      return int8_->MatMul(x, nullptr, {&projection, 1}, accumulate);
    }
    if (TakeAll(bf16_, {&projection, 1})) {
      return bf16_->MatMul(x, nullptr, {&projection, 1}, accumulate);
    }
    multiplier_.MatMul(x, w, bias, accumulate, out);
  }
  void MatMul(const NormedRows& in, std::span<const Projection> projections) override {
    const RowNorm norm = NormOf(in);
    if (NormsOnTheWay(int8_, in) && TakeAll(int8_, projections)) {
      return int8_->MatMul(in.x, &norm, projections, false);
    }
    if (NormsOnTheWay(bf16_, in) && TakeAll(bf16_, projections)) {
      return bf16_->MatMul(in.x, &norm, projections, false);
    }
    Backend::MatMul(in, projections);
  }
  void Activate(ActivationKind kind, const TensorView& gate, const TensorView& up,
                const TensorView& out) override {
    CpuActivate(*ops_.elementwise, *threads_, kind, gate, up, out);
  }
  void FeedForward(const NormedRows& in, const FeedForwardWeights& weights, bool accumulate,
                   const TensorView& gate, const TensorView& up, const TensorView& out) override {
    const RowNorm norm = NormOf(in);
    const GateFunction activate = GateOf(*ops_.elementwise, weights.activation);
    if (NormsOnTheWay(int8_, in) && int8_->TakesTogether(in.x.rows, weights)) {
      return int8_->FeedForward(in.x, &norm, weights, activate, accumulate, out);
    }
    if (NormsOnTheWay(bf16_, in) && bf16_->TakesTogether(in.x.rows, weights)) {
      return bf16_->FeedForward(in.x, &norm, weights, activate, accumulate, out);
    }
    Backend::FeedForward(in, weights, accumulate, gate, up, out);
  }
  void Add(const TensorView& x, const TensorView& y) override {
    CpuAdd(*ops_.elementwise, *threads_, x, y);
  }
  void GatherRows(const TensorView& x, std::span<const int32_t> rows,
                  const TensorView& out) override {
    CpuGatherRows(*ops_.elementwise, *threads_, x, rows, out);
  }

  void AppendKv(KvPool& pool, int32_t layer, const TensorView& k, const TensorView& v,
                const StepBatch& batch, const RopeTable* rope) override {
    CpuAppendKv(*ops_.kv, *threads_, pool, layer, k, v, batch, rope);
  }
  std::unique_ptr<AttentionPlan> PlanAttention(const StepBatch& batch) override {
    return CpuPlanAttention(batch, threads_->threads());
  }
  void Attention(const AttentionArgs& args) override {
    CpuAttention(*ops_.attention, *threads_, args);
  }
  bool CanSample(int64_t) const override { return true; }
  void Sample(const TensorView& logits, std::span<const RowDraw> draws,
              std::span<int32_t> tokens) override {
    CpuSample(*threads_, drawers_, logits, draws, tokens);
  }

 private:
  RowNorm NormOf(const NormedRows& in) const {
    return {ops_.elementwise, in.kind, in.weight, in.bias, in.eps};
  }
  template <class Multiplier>
  static bool NormsOnTheWay(const std::optional<Multiplier>& multiplier, const NormedRows& in) {
    return multiplier.has_value() && in.x.cols <= Multiplier::kMostNormed;
  }
  template <class Multiplier>
  static bool TakeAll(const std::optional<Multiplier>& multiplier,
                      std::span<const Projection> projections) {
    return multiplier.has_value() &&
           std::all_of(projections.begin(), projections.end(),
                       [](const Projection& p) { return Multiplier::Takes(*p.weight); });
  }

  std::string name_;
  CpuOps ops_;
  std::unique_ptr<ThreadPool> threads_;
  MatrixMultiplier multiplier_;
  std::optional<Int8Multiplier> int8_;  // none = everything in fp32
  std::optional<Bf16Multiplier> bf16_;
  std::vector<RowDrawer> drawers_;  // one a thread
  WeightArena arena_;
};

int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

Result<Isa> IsaFromName(std::string_view name) {
  for (Isa isa : {Isa::kAuto, Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (name == IsaName(isa)) return isa;
  }
  return InvalidArgument("KVASIR_ISA is \"" + std::string(name) +
                         "\"; use scalar, avx2, avx512 or auto");
}

// What was asked for, by option before environment; kAuto = the best there is.
Result<Isa> ResolveIsa(Isa asked) {
  const std::vector<Isa> supported = SupportedIsas();
  const char* const forced = std::getenv("KVASIR_ISA");
  if (asked == Isa::kAuto && forced != nullptr && *forced != '\0') {
    KVASIR_ASSIGN_OR_RETURN(asked, IsaFromName(forced));
  }
  if (asked == Isa::kAuto) return supported.back();
  if (std::find(supported.begin(), supported.end(), asked) == supported.end()) {
    return Unimplemented("this machine lacks the instructions for " + std::string(IsaName(asked)) +
                         "; the best it has is " + std::string(IsaName(supported.back())));
  }
  return asked;
}

}  // namespace

CpuOps CpuOpsFor(Isa isa, ComputeType compute) {
  return {isa,
          &MatMulOpsFor(isa),
          &Int8OpsFor(isa),
          Bf16OpsFor(isa),
          &ElementwiseOpsFor(isa),
          &KvOpsFor(isa),
          &AttentionOpsFor(isa, compute)};
}

Result<std::unique_ptr<Backend>> CreateCpuBackend(const CpuOptions& options) {
  constexpr int kMaxThreads = 1024;
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return InvalidArgument("threads must be 0 (all cores) to " + std::to_string(kMaxThreads) +
                           ", not " + std::to_string(options.threads));
  }
  KVASIR_ASSIGN_OR_RETURN(const Isa isa, ResolveIsa(options.isa));
  auto threads =
      std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : UsableCores());
  const CpuOps ops = CpuOpsFor(isa, options.compute);
  KVASIR_ASSIGN_OR_RETURN(MatrixMultiplier multiplier,
                          MatrixMultiplier::Create(*ops.matmul, *threads));
  std::optional<Int8Multiplier> int8;
  std::optional<Bf16Multiplier> bf16;
  if (options.compute == ComputeType::kInt8) {
    KVASIR_ASSIGN_OR_RETURN(int8, Int8Multiplier::Create(*ops.int8, *ops.matmul, *threads));
    if (ops.bf16 != nullptr) {
      KVASIR_ASSIGN_OR_RETURN(bf16, Bf16Multiplier::Create(*ops.bf16, *ops.matmul, *threads));
    }
  }
  return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(
      ops, std::move(threads), std::move(multiplier), std::move(int8), std::move(bf16)));
}

}  // namespace kvasir
