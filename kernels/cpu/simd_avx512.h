// Simd for AVX-512; see simd_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define KVASIR_PAIR_DOTS  // Simd multiplies bf16 pairs

namespace kvasir {
namespace {

struct Simd {
  using F = __m512;

  static constexpr int kWidth = 16;
  static constexpr int kLanes = 6;
  static constexpr int kVectors = 4;

  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static F Set(float x) { return _mm512_set1_ps(x); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static F Negative(F test, F yes, F no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(test, _mm512_setzero_ps(), _CMP_LT_OQ), no, yes);
  }
  static F SwapPairs(F v) { return _mm512_permute_ps(v, 0xB1); }
  static F InRange(F v, int first, int lo, int hi, F other) {
    const __m512i index =
        _mm512_add_epi32(_mm512_set1_epi32(first),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __mmask16 from_lo = _mm512_cmpge_epi32_mask(index, _mm512_set1_epi32(lo));
    return _mm512_mask_blend_ps(_mm512_mask_cmplt_epi32_mask(from_lo, index, _mm512_set1_epi32(hi)),
                                other, v);
  }
  static F LoadBf16First(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
  }
  static F LoadBf16Second(const uint16_t* p) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
  static F LoadF16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F LoadI8(const int8_t* p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static F LoadU4(const uint8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i low = _mm_set1_epi8(15), first = _mm_and_si128(bytes, low);
    const __m128i second = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(first, second)));
  }
  // ---- dot products of bf16 pairs
  using Pairs = __m512i;
  static Pairs LoadPairs(const uint32_t* p) { return _mm512_loadu_si512(p); }
  // The second of every pair zero, whatever lies there.
  static Pairs LoadFirstOfPairs(const uint32_t* p) {
    return _mm512_and_si512(LoadPairs(p), _mm512_set1_epi32(0xFFFF));
  }
  static Pairs SetPair(uint32_t pair) { return _mm512_set1_epi32(static_cast<int>(pair)); }
  // Written out: GCC 12 copies the sums before each of these instructions.
  static inline __attribute__((always_inline)) F Dot(F sums, Pairs a, Pairs b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
    return sums;
  }
  // 32 (or 16) values rounded to bf16.
  static void StorePairs(uint32_t* p, F low, F high) {
    const __m512bh pairs = _mm512_cvtne2ps_pbh(high, low);
    __builtin_memcpy(p, &pairs, sizeof pairs);
  }
  static void StoreHalfPairs(uint32_t* p, F low) {
    const __m256bh pairs = _mm512_cvtneps_pbh(low);
    __builtin_memcpy(p, &pairs, sizeof pairs);
  }
  // ---- dot products of pairs of 16-bit integers
  using Words = __m512i;
  using I = __m512i;
  static I ZeroI() { return _mm512_setzero_si512(); }
  // kWidth pairs of bytes, widened.
  static Words LoadI8Words(const int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Words SetWords(uint32_t pair) { return SetPair(pair); }
  static inline __attribute__((always_inline)) I DotWords(I sums, Words a, Words b) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
    return sums;
  }
  static F ToF(I v) { return _mm512_cvtepi32_ps(v); }
  // kWidth values rounded to 16 bits; to 8 bits.
  static void StoreWords(uint32_t* p, F v) {
    const __m256i words = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v));
    __builtin_memcpy(p, &words, sizeof words);
  }
  static void StoreI8(int8_t* p, F v) {
    const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v));
    __builtin_memcpy(p, &bytes, sizeof bytes);
  }
  static F Scale2(F v, F n) { return _mm512_scalef_ps(v, n); }
  // Scale2 needs no clamp here.
  static F Split(F x, F* whole) {
    const F fraction = _mm512_reduce_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    *whole = Sub(x, fraction);
    return fraction;
  }
  static float First(F v) { return _mm512_cvtss_f32(v); }
  static float ReduceMax(F v) { return _mm512_reduce_max_ps(v); }
  static float ReduceAdd(F v) { return _mm512_reduce_add_ps(v); }
};

}  // namespace
}  // namespace kvasir
