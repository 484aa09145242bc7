// Matrix products with packed weights: portable drivers that split the work over threads, and the
// inner loops, one table an instruction set (matmul_{scalar,avx2,avx512}.cc).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/core/backend.h"
#include "kernels/cpu/cpu_backend.h"

namespace kvasir {

class ThreadPool;
struct MatMulOps;  // defined in matmul_ops.h

const MatMulOps& MatMulOpsFor(Isa isa);  // isa is never kAuto

// The semantics of these are those of the Backend operators of the same name.
Result<std::unique_ptr<PackedWeight>> CpuPack(DType dtype, const void* data, int64_t n, int64_t k);
void CpuEmbed(const MatMulOps& ops, ThreadPool& threads, const PackedWeight& table,
              std::span<const int32_t> token_ids, float scale, const TensorView& out);
void CpuMatMul(const MatMulOps& ops, ThreadPool& threads, DType precision, const TensorView& x,
               const PackedWeight& w, const float* bias, bool accumulate, const TensorView& out);

}  // namespace kvasir
