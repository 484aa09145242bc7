// Products of packed weights with activations that are rounded on the way in, to 8 bits (Int8Ops)
// or bf16 (Bf16Ops), in blocks of 32 inputs: how the work is split over threads. The inner loops
// are Ops, one table an instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/bf16_ops.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/int8_ops.h"
#include "kernels/cpu/packed_weight.h"

namespace kvasir {

class ThreadPool;
struct MatMulOps;  // matmul_ops.h

// isa is never kAuto.
const Int8Ops& Int8OpsFor(Isa isa);
const Bf16Ops* Bf16OpsFor(Isa isa);  // null where there are no such instructions

// Multiplies on the threads of a pool that outlives it. Not thread-safe: one call at a time. Holds
// twice 4 MiB for rounded rows and about 200 KiB a thread.
template <class Ops>
class BlockMultiplier {
 public:
  static Result<BlockMultiplier> Create(const Ops& ops, const MatMulOps& finish,
                                        ThreadPool& threads);

  // Whether MatMul takes this weight: types that Ops::Takes.
  static bool Takes(const PackedWeight& weight);

  // The widest rows that are normed on the way in.
  static const int64_t kMostNormed;

  // As Backend::MatMul; every weight is one that it takes. The rows are normed (norm null: as they
  // are) and rounded once for all; no normed value leaves the cache.
  void MatMul(const TensorView& x, const RowNorm* norm, std::span<const Projection> projections,
              bool accumulate);

  // Whether FeedForward takes these: types that Ops::Takes, and rows enough for tiles that yield
  // whole blocks.
  bool TakesTogether(int64_t rows, const FeedForwardWeights& weights) const;
  // As Backend::FeedForward, rows as in MatMul. What lies between is rounded where it is computed:
  // no fp32 value of it leaves the cache.
  void FeedForward(const TensorView& x, const RowNorm* norm, const FeedForwardWeights& weights,
                   GateFunction activate, bool accumulate, const TensorView& out);

 private:
  using Block = typename Ops::Block;
  struct Product;
  struct Gated;
  // Some neighbouring panels of one projection.
  struct Column {
    const Projection* projection;
    int64_t panel;
    int panels;
  };

  BlockMultiplier(const Ops& ops, const MatMulOps& finish, ThreadPool& threads)
      : ops_(&ops), finish_(&finish), threads_(&threads) {}
  float* Scratch(int thread) const { return scratch_[static_cast<size_t>(thread)].As<float>(); }

  void RoundRows(const TensorView& x, const RowNorm* norm);
  void MultiplyRows(const Product& product);
  void MultiplyDirect(const Product& product);
  void DirectColumn(const Product& product, const Column& column, float* scratch) const;
  void MultiplyTiled(const Product& product);
  void TiledColumn(const Product& product, const Column& column, int64_t row_begin, int64_t row_end,
                   float* scratch) const;
  static void FetchOutputs(const Product& product, const Column& column, int64_t row, int rows);
  void MultiplyGated(const Gated& gated);
  void GatedColumn(const Gated& gated, int64_t column, int64_t row_begin, int64_t row_end,
                   float* scratch) const;
  void FinishGated(const Gated& gated, int64_t column, int64_t row, int64_t rows, float* gate,
                   const float* up) const;
  template <class Before, class Ready>
  void SumColumn(const PackedView& view, int64_t panel, int panels, const Block* x, int64_t blocks,
                 int64_t rows, uint8_t* b, float* c, const Before& before,
                 const Ready& ready) const;
  int64_t RowBlock(int64_t rows, int64_t blocks) const;
  void Finish(const Product& product, const Column& column, int64_t row, int rows,
              const float* sums, int64_t width) const;
  // The columns of all projections in units of `panels` panels.
  void ListColumns(const Product& product, int64_t panels);

  const Ops* ops_;
  const MatMulOps* finish_;
  ThreadPool* threads_;
  AlignedMemory rows_;                  // Block [rows][inputs / 32]
  AlignedMemory hidden_;                // the same of a feed-forward's middle
  std::vector<AlignedMemory> scratch_;  // one a thread
  std::vector<Column> columns_;         // of the call at hand
};

using Int8Multiplier = BlockMultiplier<Int8Ops>;
using Bf16Multiplier = BlockMultiplier<Bf16Ops>;

}  // namespace kvasir
