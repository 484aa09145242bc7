// Vector: 16 lanes in two AVX2 registers, for the inner loops of matrix products. Included by
// *_avx2.cc files alone.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/inline.h"
#include "kernels/cpu/quantized_rows.h"

namespace kvasir {
namespace {

struct Pair {
  __m256 lo, hi;
};
struct WordPair {
  __m256i lo, hi;
};

struct Vector {
  using F = Pair;
  using Nibbles = WordPair;
  using I = WordPair;  // 16 lanes of 32 bits, or of four bytes

  static F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F Load(const float* at) { return {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)}; }
  static void Store(float* at, F value) {
    _mm256_storeu_ps(at, value.lo);
    _mm256_storeu_ps(at + 8, value.hi);
  }
  static F Broadcast(const float* at) {
    const __m256 value = _mm256_broadcast_ss(at);
    return {value, value};
  }
  static F Fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static F Mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static F Add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static F Sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  // Written out: GCC takes a function that only prefetches for one without effects, and drops it.
  static KVASIR_INLINE void Prefetch(const uint8_t* at) {
    asm volatile("prefetcht0 %0" ::"m"(*at));
  }
  static KVASIR_INLINE void PrefetchFar(const uint8_t* at) {
    asm volatile("prefetcht1 %0" ::"m"(*at));
  }

  static __m128i Load128(const uint8_t* at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  }
  static __m256i Load256(const uint8_t* at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  }
  static F LoadF16(const uint8_t* at) {
    return {_mm256_cvtph_ps(Load128(at)), _mm256_cvtph_ps(Load128(at + 16))};
  }
  static __m256 BF16(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static F LoadBF16(const uint8_t* at) { return {BF16(Load128(at)), BF16(Load128(at + 16))}; }
  static F LoadS8(const uint8_t* at) {
    const __m128i bytes = Load128(at);
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }
  static F LoadU8(const uint8_t* at) {
    const __m128i bytes = Load128(at);
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
  }

  static Nibbles LoadNibbles(const uint8_t* at) { return {Load256(at), Load256(at + 32)}; }
  static __m256i Low4(__m256i words, int i) {
    return _mm256_and_si256(_mm256_srli_epi32(words, 4 * i), _mm256_set1_epi32(15));
  }
  static F Nibble(Nibbles words, int i) {
    return {_mm256_cvtepi32_ps(Low4(words.lo, i)), _mm256_cvtepi32_ps(Low4(words.hi, i))};
  }
  static F NibbleMinus8(Nibbles words, int i) {
    const __m256i eight = _mm256_set1_epi32(8);
    return {_mm256_cvtepi32_ps(_mm256_sub_epi32(Low4(words.lo, i), eight)),
            _mm256_cvtepi32_ps(_mm256_sub_epi32(Low4(words.hi, i), eight))};
  }

  // Byte `byte` of each 32-bit lane, less `bias`.
  static __m256 Byte(__m256i words, int byte, int bias) {
    const __m256i value =
        _mm256_and_si256(_mm256_srli_epi32(words, 8 * byte), _mm256_set1_epi32(255));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(value, _mm256_set1_epi32(bias)));
  }
  static F Byte(const uint8_t* at, int byte, int bias) {
    return {Byte(Load256(at), byte, bias), Byte(Load256(at + 32), byte, bias)};
  }

  // ---- integers
  static I ZeroI() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static I LoadI(const uint8_t* at) { return {Load256(at), Load256(at + 32)}; }
  static void StoreI(uint8_t* at, I value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), value.lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + 32), value.hi);
  }
  static I LowNibbles(I words) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(words.lo, mask), _mm256_and_si256(words.hi, mask)};
  }
  static I HighNibbles(I words) {
    return LowNibbles({_mm256_srli_epi16(words.lo, 4), _mm256_srli_epi16(words.hi, 4)});
  }
  static I BroadcastI(const int8_t* four) {
    int32_t word;
    __builtin_memcpy(&word, four, sizeof word);
    const __m256i values = _mm256_set1_epi32(word);
    return {values, values};
  }
  static I AddBytes(I a, I b) { return {_mm256_add_epi8(a.lo, b.lo), _mm256_add_epi8(a.hi, b.hi)}; }
  static I Ones() { return {_mm256_set1_epi8(1), _mm256_set1_epi8(1)}; }
  // sums + four products a lane of unsigned weights and signed values, exact.
  //  - weights below 16: pairs of products in 16 bits; those of a block of 32 inputs, 16 * 15 *
  //  128,
  //    just fit, and EndSum widens them;
  //  - others: in 32 bits by 16-bit halves, as pairs with weights above 128 would saturate.
  template <bool kNibbles>
  static KVASIR_INLINE __m256i Dot(__m256i sums, __m256i weights, __m256i values) {
    if constexpr (kNibbles) return _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, values));
    const __m256i even = _mm256_and_si256(weights, _mm256_set1_epi16(255));
    const __m256i odd = _mm256_srli_epi16(weights, 8);
    const __m256i even_values = _mm256_srai_epi16(_mm256_slli_epi16(values, 8), 8);
    const __m256i odd_values = _mm256_srai_epi16(values, 8);
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(even, even_values));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(odd, odd_values));
  }
  template <bool kNibbles>
  static KVASIR_INLINE I Dot(I sums, I weights, I values) {
    return {Dot<kNibbles>(sums.lo, weights.lo, values.lo),
            Dot<kNibbles>(sums.hi, weights.hi, values.hi)};
  }
  // Sums of products begin at `start`, which is added at the end, and end less kDotStart.
  static I BeginSum(int32_t) { return ZeroI(); }
  template <bool kNibbles>
  static F EndSum(const I& sum, int32_t start) {
    const __m256i from = _mm256_set1_epi32(start);
    return {EndHalf<kNibbles>(sum.lo, from), EndHalf<kNibbles>(sum.hi, from)};
  }
  template <bool kNibbles>
  static KVASIR_INLINE __m256 EndHalf(__m256i sum, __m256i start) {
    if constexpr (kNibbles) sum = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
    return _mm256_sub_ps(_mm256_castsi256_ps(_mm256_add_epi32(sum, start)),
                         _mm256_set1_ps(kDotStartValue));
  }
  // Lanes of bf16 pairs, (low, high) rounded.
  static I MakePairs(const F& low, const F& high) {
    return {MakePairs(low.lo, high.lo), MakePairs(low.hi, high.hi)};
  }
  static KVASIR_INLINE __m256i MakePairs(__m256 low, __m256 high) {
    return _mm256_blend_epi16(_mm256_srli_epi32(RoundToBf16(low), 16), RoundToBf16(high), 0xaa);
  }
  static KVASIR_INLINE __m256i RoundToBf16(__m256 value) {
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  }
  // What rounding to bf16 takes away.
  static F BelowBf16(const F& value) { return {BelowBf16(value.lo), BelowBf16(value.hi)}; }
  static KVASIR_INLINE __m256 BelowBf16(__m256 value) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm256_sub_ps(value, _mm256_castsi256_ps(_mm256_and_si256(RoundToBf16(value), high)));
  }
  // a / b, 0 where b is 0.
  static F Ratio(const F& a, const F& b) { return {Ratio(a.lo, b.lo), Ratio(a.hi, b.hi)}; }
  static KVASIR_INLINE __m256 Ratio(__m256 a, __m256 b) {
    const __m256 some = _mm256_cmp_ps(b, _mm256_setzero_ps(), _CMP_NEQ_UQ);
    return _mm256_and_ps(_mm256_div_ps(a, b), some);
  }
  static F OrWhereZero(const F& a, const F& b) {
    return {OrWhereZero(a.lo, b.lo), OrWhereZero(a.hi, b.hi)};
  }
  static KVASIR_INLINE __m256 OrWhereZero(__m256 a, __m256 b) {
    return _mm256_blendv_ps(a, b, _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_EQ_OQ));
  }
  // sums + the two products of each pair with those of `pair`.
  static F AddPairs(const F& sums, const I& pairs, uint32_t pair) {
    const __m256i high = _mm256_set1_epi32(static_cast<int32_t>(pair & 0xffff0000u));
    const __m256i low = _mm256_set1_epi32(static_cast<int32_t>(pair << 16));
    return {AddPairs(sums.lo, pairs.lo, low, high), AddPairs(sums.hi, pairs.hi, low, high)};
  }
  static KVASIR_INLINE __m256 AddPairs(__m256 sums, __m256i pairs, __m256i low, __m256i high) {
    const __m256i first = _mm256_slli_epi32(pairs, 16);
    const __m256i second = _mm256_blend_epi16(pairs, _mm256_setzero_si256(), 0x55);
    sums = _mm256_fmadd_ps(_mm256_castsi256_ps(first), _mm256_castsi256_ps(low), sums);
    return _mm256_fmadd_ps(_mm256_castsi256_ps(second), _mm256_castsi256_ps(high), sums);
  }
  static F ToFloat(I value) { return {_mm256_cvtepi32_ps(value.lo), _mm256_cvtepi32_ps(value.hi)}; }
};

}  // namespace
}  // namespace kvasir
