#include "kernels/core/reference_operators.h"

#include <cmath>
#include <cstring>
#include <numbers>

#include "kernels/core/status.h"

namespace kvasir::reference {
namespace {

struct Moments {
  double mean, scale;  // of a group: (x - mean) * scale is normalised
};

Moments MomentsOf(NormKind kind, const float* x, int64_t width, double eps) {
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += x[i];
  const double mean = kind == NormKind::kLayer ? sum / static_cast<double>(width) : 0.0;
  double squares = 0;
  for (int64_t i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0 / std::sqrt(squares / static_cast<double>(width) + eps)};
}

double Dot(const float* a, const float* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

}  // namespace

void Norm(NormKind kind, const TensorView& x, int64_t width, const float* weight, const float* bias,
          float eps, const TensorView& out) {
  KVASIR_CHECK(width > 0 && x.cols % width == 0 && out.rows == x.rows && out.cols == x.cols);
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t begin = 0; begin < x.cols; begin += width) {
      const float* in = x.f32_row(row) + begin;
      float* to = out.f32_row(row) + begin;
      const Moments moments = MomentsOf(kind, in, width, eps);
      for (int64_t i = 0; i < width; ++i) {
        const double normal = (in[i] - moments.mean) * moments.scale * weight[i];
        to[i] = static_cast<float>(normal + (bias != nullptr ? bias[i] : 0.0));
      }
    }
  }
}

void MatMul(const TensorView& x, std::span<const float> w, const float* bias, bool accumulate,
            const TensorView& out) {
  KVASIR_CHECK(out.rows == x.rows);
  KVASIR_CHECK(w.size() == static_cast<size_t>(out.cols * x.cols));
  for (int64_t row = 0; row < x.rows; ++row) {
    float* to = out.f32_row(row);
    for (int64_t n = 0; n < out.cols; ++n) {
      const double sum = Dot(x.f32_row(row), w.data() + n * x.cols, x.cols);
      const double before = accumulate ? to[n] : 0.0;
      to[n] = static_cast<float>(before + sum + (bias != nullptr ? bias[n] : 0.0));
    }
  }
}

// In forms that do not cancel in the far tails.
double Activation(ActivationKind kind, double x) {
  switch (kind) {
    case ActivationKind::kSilu:
      return x / (1.0 + std::exp(-x));
    case ActivationKind::kGeluErf:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case ActivationKind::kGeluTanh: {
      // (1 + tanh y) / 2 = 1 / (1 + e^-2y)
      const double y = std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x);
      return x / (1.0 + std::exp(-2.0 * y));
    }
  }
  KVASIR_CHECK(false);
  return 0;
}

void Activate(ActivationKind kind, const TensorView& gate, const TensorView& up,
              const TensorView& out) {
  KVASIR_CHECK(out.rows == gate.rows && out.cols == gate.cols);
  for (int64_t row = 0; row < gate.rows; ++row) {
    const float* in = gate.f32_row(row);
    const float* factor = up.data != nullptr ? up.f32_row(row) : nullptr;
    float* to = out.f32_row(row);
    for (int64_t i = 0; i < gate.cols; ++i) {
      const double active = Activation(kind, in[i]);
      to[i] = static_cast<float>(factor != nullptr ? active * factor[i] : active);
    }
  }
}

void Add(const TensorView& x, const TensorView& y) {
  KVASIR_CHECK(x.rows == y.rows && x.cols == y.cols);
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t i = 0; i < x.cols; ++i) x.f32_row(row)[i] += y.f32_row(row)[i];
  }
}

void GatherRows(const TensorView& x, std::span<const int32_t> rows, const TensorView& out) {
  KVASIR_CHECK(out.rows == static_cast<int64_t>(rows.size()) && out.cols == x.cols);
  for (size_t i = 0; i < rows.size(); ++i) {
    KVASIR_CHECK(rows[i] >= 0 && rows[i] < x.rows);
    std::memcpy(out.f32_row(static_cast<int64_t>(i)), x.f32_row(rows[i]),
                static_cast<size_t>(x.cols) * sizeof(float));
  }
}

}  // namespace kvasir::reference
