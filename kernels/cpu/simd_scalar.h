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
  // Pairs of 16-bit integers: kWidth of them, widened from bytes; one pair kWidth times.
  typedef int16_t Words __attribute__((vector_size(16)));
  static I ZeroI() { return I{0, 0, 0, 0}; }
  static Words LoadI8Words(const int8_t* p) {
    return Words{p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]};
  }
  static Words SetWords(uint32_t pair) { return (Words)(U{pair, pair, pair, pair}); }
  // sums[i] + the dot product of the i-th pairs.
  static I DotWords(I sums, Words a, Words b) {
    for (int i = 0; i < kWidth; ++i) sums[i] += a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
    return sums;
  }
  static F ToF(I v) { return __builtin_convertvector(v, F); }
  // kWidth values, rounded to nearest even, as integers of 16 and of 8 bits; they must fit. What is
  // written for NaN is undefined.
  static void StoreWords(uint32_t* p, F v) {
    const I whole = Round(v);
    const int16_t words[kWidth] = {static_cast<int16_t>(whole[0]), static_cast<int16_t>(whole[1]),
                                   static_cast<int16_t>(whole[2]), static_cast<int16_t>(whole[3])};
    __builtin_memcpy(p, words, sizeof words);
  }
  static void StoreI8(int8_t* p, F v) {
    const I whole = Round(v);
    for (int i = 0; i < kWidth; ++i) p[i] = static_cast<int8_t>(whole[i]);
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
  // For |v| < 2^22; anything else gives some integer.
  static I Round(F v) {
    const F magic = Set(12582912.0f);  // 1.5 * 2^23: the unit in the last place is 1
    return (I)((U)(v + magic) - (U)magic);
  }
  static U LoadPairs(const uint16_t* p) {
    U v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
};

}  // namespace
}  // namespace kvasir
