// Products of quantised weights with activations that are quantised on the way in: how the work is
// split over threads. The inner loops are Int8Ops, one table an instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/quantized_rows.h"

namespace kvasir {

class ThreadPool;
struct Int8Ops;    // int8_ops.h
struct MatMulOps;  // matmul_ops.h

const Int8Ops& Int8OpsFor(Isa isa);  // isa is never kAuto

// Multiplies on the threads of a pool that outlives it. Not thread-safe: one call at a time. Holds
// 4 MiB for quantised rows and kScratchBytes a thread.
class Int8Multiplier {
 public:
  static Result<Int8Multiplier> Create(const Int8Ops& ops, const MatMulOps& finish,
                                       ThreadPool& threads);

  // Whether MatMul takes this weight: quantised types.
  static bool Takes(const PackedWeight& weight);

  // As Backend::MatMul; every weight is one that it takes. The rows are quantised once for all.
  void MatMul(const TensorView& x, std::span<const Projection> projections, bool accumulate);

 private:
  struct Product;
  // Some neighbouring panels of one projection.
  struct Column {
    const Projection* projection;
    int64_t panel;
    int panels;
  };

  Int8Multiplier(const Int8Ops& ops, const MatMulOps& finish, ThreadPool& threads)
      : ops_(&ops), finish_(&finish), threads_(&threads) {}
  float* Scratch(int thread) const { return scratch_[static_cast<size_t>(thread)].As<float>(); }

  void Quantize(const TensorView& x);
  void MultiplyRows(const Product& product);
  void MultiplyDirect(const Product& product);
  void DirectColumn(const Product& product, const Column& column, float* scratch) const;
  void MultiplyTiled(const Product& product);
  void TiledColumn(const Product& product, const Column& column, int64_t row_begin, int64_t row_end,
                   float* scratch) const;
  static void FetchOutputs(const Product& product, const Column& column, int64_t row, int rows);
  void Finish(const Product& product, const Column& column, int64_t row, int rows,
              const float* sums, int64_t width) const;
  // The columns of all projections in units of `panels` panels.
  void ListColumns(const Product& product, int64_t panels);

  const Int8Ops* ops_;
  const MatMulOps* finish_;
  ThreadPool* threads_;
  AlignedMemory rows_;                  // QuantizedBlock [rows][inputs / 32]
  std::vector<AlignedMemory> scratch_;  // one a thread
  std::vector<Column> columns_;         // of the call at hand
};

}  // namespace kvasir
