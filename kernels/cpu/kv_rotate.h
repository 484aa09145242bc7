// RotateRow: turns one row by a Rotation. Include after one simd_*.h, in a translation unit of
// that suffix.
#pragma once

#include <cstdint>

#include "kernels/cpu/kv_ops.h"

namespace kvasir {
namespace {

// out[i] = x[i] * cos[i] + partner[i] * sin[i].
inline void RotateSpan(const float* x, const float* partner, const float* cos, const float* sin,
                       int64_t n, float* out) {
  int64_t i = 0;
  for (; i + Simd::kWidth <= n; i += Simd::kWidth) {
    const Simd::F turned = Simd::Mul(Simd::Load(partner + i), Simd::Load(sin + i));
    Simd::Store(out + i, Simd::Fma(Simd::Load(x + i), Simd::Load(cos + i), turned));
  }
  for (; i < n; ++i) out[i] = x[i] * cos[i] + partner[i] * sin[i];
}

inline void RotateInterleaved(const float* x, const Rotation& rotation, float* out) {
  const int64_t n = rotation.dims;
  int64_t i = 0;
  for (; i + Simd::kWidth <= n; i += Simd::kWidth) {
    const Simd::F v = Simd::Load(x + i);
    const Simd::F turned = Simd::Mul(Simd::SwapPairs(v), Simd::Load(rotation.sin + i));
    Simd::Store(out + i, Simd::Fma(v, Simd::Load(rotation.cos + i), turned));
  }
  for (; i < n; ++i) out[i] = x[i] * rotation.cos[i] + x[i ^ 1] * rotation.sin[i];
}

// x [width] -> out [width], which must not overlap; dimensions from rotation.dims on are copied.
inline void RotateRow(const float* x, const Rotation& rotation, int64_t width, float* out) {
  const int64_t half = rotation.dims / 2;
  if (rotation.interleaved) {
    RotateInterleaved(x, rotation, out);
  } else {
    RotateSpan(x, x + half, rotation.cos, rotation.sin, half, out);
    RotateSpan(x + half, x, rotation.cos + half, rotation.sin + half, half, out + half);
  }
  for (int64_t i = rotation.dims; i < width; ++i) out[i] = x[i];
}

}  // namespace
}  // namespace kvasir
