// Vector: 16 lanes with AVX-512, for the inner loops of matrix products. Included by *_avx512.cc
// files alone.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/inline.h"
#include "kernels/cpu/quantized_rows.h"

namespace kvasir {
namespace {

struct Vector {
  using F = __m512;
  using Nibbles = __m512i;
  using I = __m512i;  // 16 lanes of 32 bits, or of four bytes

  static F Zero() { return _mm512_setzero_ps(); }
  static F Load(const float* at) { return _mm512_loadu_ps(at); }
  static void Store(float* at, F value) { _mm512_storeu_ps(at, value); }
  static F Broadcast(const float* at) { return _mm512_set1_ps(*at); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  // Written out: GCC takes a function that only prefetches for one without effects, and drops it.
  static KVASIR_INLINE void Prefetch(const uint8_t* at) {
    asm volatile("prefetcht0 %0" ::"m"(*at));
  }
  static KVASIR_INLINE void PrefetchFar(const uint8_t* at) {
    asm volatile("prefetcht1 %0" ::"m"(*at));
  }

  static F LoadF16(const uint8_t* at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  }
  static F LoadBF16(const uint8_t* at) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static F LoadS8(const uint8_t* at) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
  static F LoadU8(const uint8_t* at) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
  }

  // A 4-bit value becomes a float by one permutation of a table of 16: the permutation looks at
  // the low 4 bits of a lane only.
  static Nibbles LoadNibbles(const uint8_t* at) { return _mm512_loadu_si512(at); }
  static F Nibble(Nibbles words, int i) {
    const F table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(words, static_cast<unsigned>(4 * i)), table);
  }
  static F NibbleMinus8(Nibbles words, int i) {
    const F table = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(words, static_cast<unsigned>(4 * i)), table);
  }

  // Byte `byte` of each 32-bit lane, less `bias`.
  static F Byte(const uint8_t* at, int byte, int bias) {
    const __m512i words =
        _mm512_srli_epi32(_mm512_loadu_si512(at), static_cast<unsigned>(8 * byte));
    const __m512i value = _mm512_and_si512(words, _mm512_set1_epi32(255));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(value, _mm512_set1_epi32(bias)));
  }

  // ---- integers
  static I ZeroI() { return _mm512_setzero_si512(); }
  static I LoadI(const uint8_t* at) { return _mm512_loadu_si512(at); }
  static void StoreI(uint8_t* at, I value) { _mm512_storeu_si512(at, value); }
  static I LowNibbles(I words) { return _mm512_and_si512(words, _mm512_set1_epi8(15)); }
  static I HighNibbles(I words) { return LowNibbles(_mm512_srli_epi16(words, 4)); }
  static I BroadcastI(const int8_t* four) {
    int32_t word;
    __builtin_memcpy(&word, four, sizeof word);
    return _mm512_set1_epi32(word);
  }
  static I AddBytes(I a, I b) { return _mm512_add_epi8(a, b); }
  static I Ones() { return _mm512_set1_epi8(1); }
  // sums + four products a lane of unsigned weights and signed values, exact. Written out: GCC 12
  // copies the sums before each of these instructions, which halves their rate.
  template <bool kNibbles>
  static KVASIR_INLINE I Dot(I sums, I weights, I values) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(weights), "v"(values));
    return sums;
  }
  // Sums of products begin at `start` and end less kDotStart.
  static I BeginSum(int32_t start) { return _mm512_set1_epi32(start); }
  template <bool kNibbles>
  static F EndSum(I sum, int32_t) {
    return _mm512_sub_ps(_mm512_castsi512_ps(sum), _mm512_set1_ps(kDotStartValue));
  }
  // Lanes of bf16 pairs, (low, high) rounded.
  static I MakePairs(F low, F high) {
    static constexpr auto kOrder = [] {
      struct {
        alignas(64) uint16_t place[32];
      } order{};
      for (int i = 0; i < 32; ++i) order.place[i] = static_cast<uint16_t>(16 * (i % 2) + i / 2);
      return order;
    }();
    const __m512bh halves = _mm512_cvtne2ps_pbh(high, low);
    I words;
    __builtin_memcpy(&words, &halves, sizeof words);
    return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder.place), words);
  }
  // What rounding to bf16 takes away.
  static F BelowBf16(F value) {
    const __m256bh halves = _mm512_cvtneps_pbh(value);
    __m256i bits;
    __builtin_memcpy(&bits, &halves, sizeof bits);
    return Sub(value, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
  }
  // a / b, 0 where b is 0.
  static F Ratio(F a, F b) {
    return _mm512_maskz_div_ps(_mm512_cmp_ps_mask(b, Zero(), _CMP_NEQ_UQ), a, b);
  }
  static F OrWhereZero(F a, F b) {
    return _mm512_mask_mov_ps(a, _mm512_cmp_ps_mask(a, Zero(), _CMP_EQ_OQ), b);
  }
  // sums + the two products of each pair with those of `pair`.
  static KVASIR_INLINE F AddPairs(F sums, I pairs, uint32_t pair) {
    const I other = _mm512_set1_epi32(static_cast<int32_t>(pair));
    asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(other), "v"(pairs));
    return sums;
  }
  static F ToFloat(I value) { return _mm512_cvtepi32_ps(value); }
};

}  // namespace
}  // namespace kvasir
