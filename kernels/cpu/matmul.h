// Matrix products with packed weights: how the work is split over threads. The inner loops are
// MatMulOps, one table an instruction set.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/cpu_backend.h"

namespace kvasir {

class ThreadPool;
struct MatMulOps;  // matmul_ops.h

const MatMulOps& MatMulOpsFor(Isa isa);  // isa is never kAuto

// Multiplies on the threads of a pool that outlives it. Not thread-safe: one call at a time.
// Holds scratch memory of kScratchBytes a thread.
class MatrixMultiplier {
 public:
  static Result<MatrixMultiplier> Create(const MatMulOps& ops, ThreadPool& threads);

  // As Backend::MatMul and Backend::Embed; weights come from PackMatrix.
  void MatMul(const TensorView& x, const PackedWeight& w, const float* bias, bool accumulate,
              const TensorView& out) const;
  void Embed(const PackedWeight& table, std::span<const int32_t> token_ids, float scale,
             const TensorView& out) const;

 private:
  struct Product;  // the operands of one MatMul

  MatrixMultiplier(const MatMulOps& ops, ThreadPool& threads) : ops_(&ops), threads_(&threads) {}
  float* Scratch(int thread) const { return scratch_[static_cast<size_t>(thread)].As<float>(); }

  // Few rows: straight from packed memory.
  void MultiplyDirect(const Product& product) const;
  void DirectPanels(const Product& product, int64_t first, int64_t last, float* scratch) const;
  // Many rows: blocks of rows x columns through decoded panels.
  void MultiplyTiled(const Product& product) const;
  void TiledColumns(const Product& product, int64_t row_begin, int64_t row_end, int64_t column,
                    float* scratch) const;

  const MatMulOps* ops_;
  ThreadPool* threads_;
  std::vector<AlignedMemory> scratch_;  // one a thread
};

}  // namespace kvasir
