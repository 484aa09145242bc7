// The reference backend's row operators: plain loops, accumulated in double, rounded once.
// Stateless; every view is fp32 host memory.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/backend.h"

namespace kvasir::reference {

void Norm(NormKind kind, const TensorView& x, int64_t width, const float* weight, const float* bias,
          float eps, const TensorView& out);

// w [N][K] row-major fp32.
void MatMul(const TensorView& x, std::span<const float> w, const float* bias, bool accumulate,
            const TensorView& out);

double Activation(ActivationKind kind, double x);
void Activate(ActivationKind kind, const TensorView& gate, const TensorView& up,
              const TensorView& out);

void Add(const TensorView& x, const TensorView& y);

void GatherRows(const TensorView& x, std::span<const int32_t> rows, const TensorView& out);

}  // namespace kvasir::reference
