#include "kernels/cpu/elementwise.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/status.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/elementwise_ops.h"

namespace kvasir {
namespace {

// Below this many elements one thread does it all: about 10 us of memory traffic.
constexpr int64_t kWorthSplitting = 32 * 1024;

// body(row) for every row; `cost` = elements touched a row.
template <typename Body>
void ForRows(ThreadPool& threads, int64_t rows, int64_t cost, const Body& body) {
  if (threads.threads() == 1 || rows < 2 || rows * cost < kWorthSplitting) {
    for (int64_t row = 0; row < rows; ++row) body(row);
    return;
  }
  const int64_t tasks = std::min<int64_t>(rows, 4 * int64_t{threads.threads()});
  threads.ParallelFor(tasks, [&](int64_t task, int) {
    for (int64_t row = rows * task / tasks; row < rows * (task + 1) / tasks; ++row) body(row);
  });
}

}  // namespace

const ElementwiseOps& ElementwiseOpsFor(Isa isa) {
  KVASIR_CHECK(isa != Isa::kAuto);
  if (isa == Isa::kAvx512) return kElementwiseAvx512;
  return isa == Isa::kAvx2 ? kElementwiseAvx2 : kElementwiseScalar;
}

GateFunction GateOf(const ElementwiseOps& ops, ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kSilu:
      return ops.silu;
    case ActivationKind::kGeluTanh:
      return ops.gelu_tanh;
    case ActivationKind::kGeluErf:
      return ops.gelu_erf;
  }
  KVASIR_CHECK(false);
  return nullptr;
}

void RowNorm::Apply(const float* x, int64_t n, float* out) const {
  if (kind == NormKind::kLayer) return ops->layer_norm(x, n, weight, bias, eps, out);
  ops->rms_norm(x, n, weight, eps, out);
  if (bias != nullptr) ops->add(out, bias, n);
}

void CpuNorm(const ElementwiseOps& ops, ThreadPool& threads, NormKind kind, const TensorView& x,
             int64_t width, const float* weight, const float* bias, float eps,
             const TensorView& out) {
  KVASIR_CHECK(width > 0 && x.cols % width == 0 && out.rows == x.rows && out.cols == x.cols);
  const RowNorm norm{&ops, kind, weight, bias, eps};
  ForRows(threads, x.rows, 4 * x.cols, [&](int64_t row) {
    for (int64_t begin = 0; begin < x.cols; begin += width) {
      norm.Apply(x.f32_row(row) + begin, width, out.f32_row(row) + begin);
    }
  });
}

void CpuActivate(const ElementwiseOps& ops, ThreadPool& threads, ActivationKind kind,
                 const TensorView& gate, const TensorView& up, const TensorView& out) {
  KVASIR_CHECK(out.rows == gate.rows && out.cols == gate.cols);
  KVASIR_CHECK(up.data == nullptr || (up.rows == gate.rows && up.cols == gate.cols));
  const GateFunction function = GateOf(ops, kind);
  ForRows(threads, gate.rows, 8 * gate.cols, [&](int64_t row) {
    const float* factor = up.data != nullptr ? up.f32_row(row) : nullptr;
    function(gate.f32_row(row), factor, gate.cols, out.f32_row(row));
  });
}

void CpuAdd(const ElementwiseOps& ops, ThreadPool& threads, const TensorView& x,
            const TensorView& y) {
  KVASIR_CHECK(x.rows == y.rows && x.cols == y.cols);
  ForRows(threads, x.rows, x.cols,
          [&](int64_t row) { ops.add(x.f32_row(row), y.f32_row(row), x.cols); });
}

void CpuGatherRows(const ElementwiseOps&, ThreadPool& threads, const TensorView& x,
                   std::span<const int32_t> rows, const TensorView& out) {
  const auto count = static_cast<int64_t>(rows.size());
  KVASIR_CHECK(out.rows == count && out.cols == x.cols);
  for (const int32_t row : rows) KVASIR_CHECK(row >= 0 && row < x.rows);
  ForRows(threads, count, x.cols, [&](int64_t i) {
    std::memcpy(out.f32_row(i), x.f32_row(rows[static_cast<size_t>(i)]),
                static_cast<size_t>(x.cols) * sizeof(float));
  });
}

}  // namespace kvasir
