// Simd for AVX2 with FMA and F16C; see simd_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace kvasir {
namespace {

struct Simd {
  using F = __m256;

  static constexpr int kWidth = 8;
  static constexpr int kLanes = 6;
  static constexpr int kVectors = 2;

  static F Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static F Set(float x) { return _mm256_set1_ps(x); }
  static F Add(F a, F b) { return _mm256_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm256_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F Max(F a, F b) { return _mm256_max_ps(a, b); }
  static F Min(F a, F b) { return _mm256_min_ps(a, b); }
  static F Negative(F test, F yes, F no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(test, _mm256_setzero_ps(), _CMP_LT_OQ));
  }
  static F SwapPairs(F v) { return _mm256_permute_ps(v, 0xB1); }
  static F InRange(F v, int first, int lo, int hi, F other) {
    const __m256i index =
        _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(lo), index);
    const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), index);
    return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(_mm256_andnot_si256(below, inside)));
  }
  static F LoadBf16First(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(LoadPairs(p), 16));
  }
  static F LoadBf16Second(const uint16_t* p) {
    return _mm256_castsi256_ps(
        _mm256_and_si256(LoadPairs(p), _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
  static F LoadF16(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static F LoadI8(const int8_t* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static F LoadU4(const uint8_t* p) {
    int32_t bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    const __m128i bytes = _mm_cvtsi32_si128(bits), low = _mm_set1_epi8(15);
    const __m128i first = _mm_and_si128(bytes, low);
    const __m128i second = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpacklo_epi8(first, second)));
  }
  using Words = __m256i;
  using I = __m256i;
  static I ZeroI() { return _mm256_setzero_si256(); }
  static Words LoadI8Words(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Words SetWords(uint32_t pair) { return _mm256_set1_epi32(static_cast<int>(pair)); }
  static I DotWords(I sums, Words a, Words b) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
  }
  static F ToF(I v) { return _mm256_cvtepi32_ps(v); }
  static void StoreWords(uint32_t* p, F v) {
    const __m128i words = NarrowToWords(v);
    __builtin_memcpy(p, &words, sizeof words);
  }
  static void StoreI8(int8_t* p, F v) {
    const __m128i words = NarrowToWords(v), bytes = _mm_packs_epi16(words, words);
    __builtin_memcpy(p, &bytes, 8);
  }
  static F Scale2(F v, F n) {
    n = Min(Set(127.0f), Max(Set(-127.0f), n));
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(v, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
  }
  static F Split(F x, F* whole) {
    x = Min(Set(129.0f), Max(Set(-160.0f), x));
    *whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return Sub(x, *whole);
  }
  static float First(F v) { return _mm256_cvtss_f32(v); }
  static float ReduceMax(F v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
  }
  static float ReduceAdd(F v) {
    __m128 m = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_add_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_add_ss(m, _mm_shuffle_ps(m, m, 1)));
  }

 private:
  static __m128i NarrowToWords(F v) {
    const __m256i i = _mm256_cvtps_epi32(v);
    return _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
  }
  static __m256i LoadPairs(const uint16_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
};

}  // namespace
}  // namespace kvasir
