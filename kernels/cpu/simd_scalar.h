// Simd: sixteen bytes of floats for machines of any kind, with the operations that the kernel
// templates (elementwise_kernels.h, kv_kernels.h, attention_kernels.h) are written in. simd_avx2.h
// and simd_avx512.h define the same names.
//
// Each of these headers is for the one translation unit a table that carries its suffix. The
// anonymous namespace keeps the linker from sharing functions among instruction sets.
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"

namespace kvasir {
namespace {

struct Simd {
  typedef float F __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));
  typedef uint32_t U __attribute__((vector_size(16)));

  static constexpr int kWidth = 4;
  static constexpr int kLanes = 2;    // rows of a register tile
  static constexpr int kVectors = 4;  // columns of a register tile, in vectors

  static F Load(const float* p) {
    F v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static void Store(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }
  static F Set(float x) { return F{x, x, x, x}; }
  static F Add(F a, F b) { return a + b; }
  static F Sub(F a, F b) { return a - b; }
  static F Mul(F a, F b) { return a * b; }
  static F Div(F a, F b) { return a / b; }
  static F Fma(F a, F b, F c) { return a * b + c; }
  // b where the two cannot be ordered, so that a NaN in b stays.
  static F Max(F a, F b) { return a > b ? a : b; }
  static F Min(F a, F b) { return a < b ? a : b; }
  static F Negative(F test, F yes, F no) { return test < 0.0f ? yes : no; }  // test < 0 ? yes : no
  static F SwapPairs(F v) { return __builtin_shuffle(v, I{1, 0, 3, 2}); }
  // Lane i keeps v where lo <= first + i < hi.
  static F InRange(F v, int first, int lo, int hi, F other) {
    const I index = I{0, 1, 2, 3} + first;
    return ((index >= lo) & (index < hi)) ? v : other;
  }
  // kWidth pairs of bf16: the first or the second of each.
  static F LoadBf16First(const uint16_t* p) { return (F)(LoadPairs(p) << 16); }
  static F LoadBf16Second(const uint16_t* p) { return (F)(LoadPairs(p) & 0xFFFF0000u); }
  static F LoadF16(const uint16_t* p) {
    return F{F16ToF32(p[0]), F16ToF32(p[1]), F16ToF32(p[2]), F16ToF32(p[3])};
  }
  static F LoadI8(const int8_t* p) {
    return F{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
             static_cast<float>(p[3])};
  }
  // kWidth unsigned values of 4 bits, two a byte, the first in the low half.
  static F LoadU4(const uint8_t* p) {
    return F{static_cast<float>(p[0] & 15), static_cast<float>(p[0] >> 4),
             static_cast<float>(p[1] & 15), static_cast<float>(p[1] >> 4)};
  }
  // v * 2^n for whole n; 0 for n <= -127, finite for n >= 128.
  static F Scale2(F v, F n) {
    n = Min(Set(127.0f), Max(Set(-127.0f), n));
    return v * (F)((__builtin_convertvector(n, I) + 127) << 23);
  }
  // x = *whole + fraction, |fraction| <= 1/2, for use with Scale2; x may be clamped to where 2^x is
  // 0 or huge.
  static F Split(F x, F* whole) {
    x = Min(Set(129.0f), Max(Set(-160.0f), x));
    const F magic = Set(12582912.0f);  // 1.5 * 2^23: the unit in the last place is 1
    *whole = (x + magic) - magic;
    return x - *whole;
  }
  static float First(F v) { return v[0]; }
  static float ReduceMax(F v) {
    const float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
  }
  static float ReduceAdd(F v) { return (v[0] + v[2]) + (v[1] + v[3]); }

 private:
  static U LoadPairs(const uint16_t* p) {
    U v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
};

}  // namespace
}  // namespace kvasir
