// The loops of ElementwiseOps in terms of Simd. Include after one simd_*.h, in a translation unit
// of that suffix.
//
// Rows whose length is no multiple of the vector end in a copy padded with zeros, so that every
// element goes through the same arithmetic whatever its place.
#pragma once

#include <cstdint>

#include "kernels/cpu/elementwise_ops.h"
#include "kernels/cpu/simd_math.h"

namespace kvasir {
namespace {

using F = Simd::F;

// The last `count` < kWidth elements at p, zeros behind them.
inline F LoadTail(const float* p, int64_t count) {
  float padded[Simd::kWidth] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = p[i];
  return Simd::Load(padded);
}

inline void StoreTail(float* p, F v, int64_t count) {
  float padded[Simd::kWidth];
  Simd::Store(padded, v);
  for (int64_t i = 0; i < count; ++i) p[i] = padded[i];
}

// out[i] = f(x[i], y[i]); y may be null (f sees zeros).
template <typename Function>
inline void Map(const float* x, const float* y, int64_t n, float* out, Function f) {
  int64_t i = 0;
  for (; i + Simd::kWidth <= n; i += Simd::kWidth) {
    Simd::Store(out + i, f(Simd::Load(x + i), y != nullptr ? Simd::Load(y + i) : Simd::Set(0)));
  }
  if (i < n) {
    const F second = y != nullptr ? LoadTail(y + i, n - i) : Simd::Set(0);
    StoreTail(out + i, f(LoadTail(x + i, n - i), second), n - i);
  }
}

// Sum with four accumulators of a vector each, f(x, sum) = sum + a term of x; the tail's terms are
// added one by one.
template <typename Function>
inline float Sum(const float* x, int64_t n, Function f) {
  constexpr int64_t kStep = 4 * Simd::kWidth;
  F sums[4] = {Simd::Set(0), Simd::Set(0), Simd::Set(0), Simd::Set(0)};
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    for (int64_t part = 0; part < 4; ++part) {
      sums[part] = f(Simd::Load(x + i + part * Simd::kWidth), sums[part]);
    }
  }
  for (int part = 0; i + Simd::kWidth <= n; i += Simd::kWidth, ++part) {
    sums[part] = f(Simd::Load(x + i), sums[part]);
  }
  float tail = 0.0f;
  if (i < n) {
    float terms[Simd::kWidth];
    Simd::Store(terms, f(LoadTail(x + i, n - i), Simd::Set(0)));
    for (int64_t t = 0; t < n - i; ++t) tail += terms[t];
  }
  return Simd::ReduceAdd(Simd::Add(Simd::Add(sums[0], sums[1]), Simd::Add(sums[2], sums[3]))) +
         tail;
}

inline void RmsNorm(const float* x, int64_t width, const float* weight, float eps, float* out) {
  const float squares = Sum(x, width, [](F v, F sum) { return Simd::Fma(v, v, sum); });
  const F scale = Simd::Set(1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + eps));
  Map(x, weight, width, out, [scale](F v, F w) { return Simd::Mul(Simd::Mul(v, scale), w); });
}

inline void LayerNorm(const float* x, int64_t width, const float* weight, const float* bias,
                      float eps, float* out) {
  const auto count = static_cast<float>(width);
  const F mean = Simd::Set(Sum(x, width, [](F v, F sum) { return Simd::Add(v, sum); }) / count);
  const float squares = Sum(x, width, [mean](F v, F sum) {
    const F centred = Simd::Sub(v, mean);
    return Simd::Fma(centred, centred, sum);
  });
  const F scale = Simd::Set(1.0f / __builtin_sqrtf(squares / count + eps));
  Map(x, weight, width, out,
      [mean, scale](F v, F w) { return Simd::Mul(Simd::Mul(Simd::Sub(v, mean), scale), w); });
  if (bias != nullptr) Map(out, bias, width, out, [](F v, F b) { return Simd::Add(v, b); });
}

// x / (1 + e^-y): x times the logistic function of y.
inline F TimesLogistic(F x, F y) {
  const F e = Exp(Simd::Sub(Simd::Set(0), y));
  return Simd::Div(x, Simd::Add(Simd::Set(1.0f), e));
}

inline F Silu(F x) { return TimesLogistic(x, x); }

// 0.5 x (1 + tanh(y)) = x * logistic(2y), y = sqrt(2/pi) (x + 0.044715 x^3).
inline F GeluTanh(F x) {
  const F cubic = Simd::Fma(Simd::Mul(x, x), Simd::Set(0.044715f), Simd::Set(1.0f));
  return TimesLogistic(x, Simd::Mul(Simd::Mul(x, cubic), Simd::Set(1.5957691216057308f)));
}

// erfc(z) for z >= 0 as t * exp(-z^2 + P(t)), t = 1 / (1 + z/2): relative error 1.2e-7 (Press et
// al., Numerical Recipes, erfcc).
inline F ComplementaryError(F z) {
  static constexpr float kP[] = {0.17087277f, -0.82215223f, 1.48851587f, -1.13520398f,
                                 0.27886807f, -0.18628806f, 0.09678418f, 0.37409196f,
                                 1.00002368f, -1.26551223f};
  const F t = Simd::Div(Simd::Set(1.0f), Simd::Fma(z, Simd::Set(0.5f), Simd::Set(1.0f)));
  F p = Simd::Set(kP[0]);
  for (int i = 1; i < 10; ++i) p = Simd::Fma(p, t, Simd::Set(kP[i]));
  return Simd::Mul(t, Exp(Simd::Sub(p, Simd::Mul(z, z))));
}

// x * Phi(x), Phi from the tail's side so that nothing cancels.
inline F GeluErf(F x) {
  const F size = Simd::Max(Simd::Sub(Simd::Set(0), x), x);
  const F tail =
      Simd::Mul(Simd::Set(0.5f), ComplementaryError(Simd::Mul(size, Simd::Set(0.70710678f))));
  return Simd::Mul(x, Simd::Negative(x, tail, Simd::Sub(Simd::Set(1.0f), tail)));
}

template <F (*Activation)(F)>
inline void Gate(const float* gate, const float* up, int64_t n, float* out) {
  if (up == nullptr) {
    Map(gate, nullptr, n, out, [](F x, F) { return Activation(x); });
  } else {
    Map(gate, up, n, out, [](F x, F y) { return Simd::Mul(Activation(x), y); });
  }
}

inline void AddRow(float* x, const float* y, int64_t n) {
  Map(x, y, n, x, [](F a, F b) { return Simd::Add(a, b); });
}

// Max returns its second argument if one is NaN. A NaN or +infinity times 0 is NaN; -infinity must
// not be.
inline float Greatest(const float* x, int64_t n) {
  const float lowest = -__builtin_inff();
  F greatest = Simd::Set(lowest), poison = Simd::Set(0);
  int64_t i = 0;
  for (; i + Simd::kWidth <= n; i += Simd::kWidth) {
    const F v = Simd::Load(x + i);
    greatest = Simd::Max(v, greatest);
    poison = Simd::Fma(Simd::Max(Simd::Set(-3e38f), v), Simd::Set(0), poison);
  }
  float most = Simd::ReduceMax(greatest), bad = Simd::ReduceAdd(poison);
  for (; i < n; ++i) {
    most = x[i] > most ? x[i] : most;
    bad = x[i] < __builtin_inff() ? bad : __builtin_nanf("");
  }
  return bad == 0 ? most : __builtin_nanf("");
}

inline void Weigh(const float* x, int64_t n, float highest, float inverse, float* out) {
  const F from = Simd::Set(highest), factor = Simd::Set(inverse);
  Map(x, nullptr, n, out,
      [from, factor](F v, F) { return Exp(Simd::Mul(Simd::Sub(v, from), factor)); });
}

constexpr ElementwiseOps kElementwiseTable = {
    RmsNorm, LayerNorm, Gate<Silu>, Gate<GeluTanh>, Gate<GeluErf>, AddRow, Greatest, Weigh,
};

}  // namespace
}  // namespace kvasir
