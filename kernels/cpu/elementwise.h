// Norms, activations and sums over rows: portable drivers that split rows over threads, and the
// inner loops, one table an instruction set (elementwise_{scalar,avx2,avx512}.cc).
//
// The tables' files include this header alone: an inline function of the standard library that
// they instantiate could be picked by the linker for machines without their instructions.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/backend.h"
#include "kernels/cpu/cpu_backend.h"

namespace kvasir {

class ThreadPool;
struct ElementwiseOps;  // defined beside its implementations

const ElementwiseOps& ElementwiseOpsFor(Isa isa);  // isa is never kAuto

// out [n] = activation(gate) * up; out may be gate.
using GateFunction = void (*)(const float* gate, const float* up, int64_t n, float* out);
GateFunction GateOf(const ElementwiseOps& ops, ActivationKind kind);

// out [n] = norm(x), x and out of the norm's own width; out may be x.
struct RowNorm {
  const ElementwiseOps* ops;
  NormKind kind;
  const float* weight;
  const float* bias;  // or null
  float eps;

  void Apply(const float* x, int64_t n, float* out) const;
};

void CpuNorm(const ElementwiseOps& ops, ThreadPool& threads, NormKind kind, const TensorView& x,
             int64_t width, const float* weight, const float* bias, float eps,
             const TensorView& out);
void CpuActivate(const ElementwiseOps& ops, ThreadPool& threads, ActivationKind kind,
                 const TensorView& gate, const TensorView& up, const TensorView& out);
void CpuAdd(const ElementwiseOps& ops, ThreadPool& threads, const TensorView& x,
            const TensorView& y);
void CpuGatherRows(const ElementwiseOps& ops, ThreadPool& threads, const TensorView& x,
                   std::span<const int32_t> rows, const TensorView& out);

}  // namespace kvasir
