// clang-format off
#include "kernels/cpu/simd_avx512.h"  // the instruction set comes first
#include "kernels/cpu/kv_kernels.h"
// clang-format on

#include <algorithm>
#include <limits>

namespace kvasir {
namespace {

// Transposes 16 x 16 values of 32 bits in place: rows become columns. Quarters of 128 bits first
// within pairs and quadruples of rows, then among the registers.
inline void Transpose16(__m512i* r) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // r[4q + c] holds, in quarter p, column 4p + c of rows 4q .. 4q + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i low01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xEE);
    const __m512i low23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x44);
    const __m512i high23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xEE);
    t[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
    t[8 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    t[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

// 32 floats as bf16, in order.
inline __m512i Bf16Of(const float* from) {
  const __m512 low = _mm512_load_ps(from), high = _mm512_load_ps(from + 16);
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// 32 dimensions of 16 keys: [16 slots][32] -> [16 pairs][16 slots][2].
inline void PackKeys32(const float* scratch, int64_t stride, uint16_t* to) {
  __m512i rows[16];
  for (int slot = 0; slot < 16; ++slot) rows[slot] = Bf16Of(scratch + slot * stride);
  Transpose16(rows);
  for (int pair = 0; pair < 16; ++pair) _mm512_store_si512(to + 32 * pair, rows[pair]);
}

// Largest magnitudes of 16 rows of `dims` (a multiple of 16) values each, as LargestMagnitude.
inline __m512 LargestMagnitudes(const float* rows, int64_t stride, int64_t dims) {
  const __m512i sign = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i tops[16];
  for (int slot = 0; slot < 16; ++slot) {
    tops[slot] = _mm512_setzero_si512();
    for (int64_t d = 0; d < dims; d += 16) {
      const __m512i bits = _mm512_and_si512(_mm512_load_si512(rows + slot * stride + d), sign);
      tops[slot] = _mm512_max_epu32(tops[slot], bits);
    }
  }
  Transpose16(tops);
  for (int n = 8; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) tops[i] = _mm512_max_epu32(tops[i], tops[i + n]);
  }
  return _mm512_castsi512_ps(tops[0]);
}

// Int8ScaleOf of 16 groups: stores the scales, returns the inverses.
inline __m512 StoreScales(__m512 tops, float* scales) {
  const __m512 all = _mm512_set1_ps(127.0f);
  const __mmask16 finite =
      _mm512_cmp_ps_mask(tops, _mm512_set1_ps(std::numeric_limits<float>::max()), _CMP_LE_OQ);
  const __mmask16 counts =
      _mm512_mask_cmp_ps_mask(finite, tops, _mm512_set1_ps(kLeastInt8Magnitude), _CMP_GE_OQ);
  const __m512 nan = _mm512_set1_ps(std::numeric_limits<float>::quiet_NaN());
  _mm512_store_ps(scales, _mm512_mask_mov_ps(nan, finite, _mm512_maskz_div_ps(counts, tops, all)));
  return _mm512_maskz_div_ps(counts, all, tops);
}

inline __m512i Quantized(const float* from, float inverse) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(from), _mm512_set1_ps(inverse)));
}

// `dims` = 32 or 64 dimensions of 16 keys: [16 slots][dims] -> [dims / 2][16 slots][2].
void PackInt8Keys(const float* scratch, int64_t stride, int64_t dims, float* scales, int8_t* to) {
  alignas(64) int8_t bytes[16][64];
  alignas(64) float inverses[16];
  for (int64_t d = 0; d < dims; d += kKeyScaleDims, scales += kTileSlots) {
    const float* rows = scratch + d;
    _mm512_store_ps(inverses, StoreScales(LargestMagnitudes(rows, stride, kKeyScaleDims), scales));
    for (int slot = 0; slot < 16; ++slot) {
      for (int64_t i = 0; i < kKeyScaleDims; i += 16) {
        const __m512i q = Quantized(rows + slot * stride + i, inverses[slot]);
        _mm_store_si128(reinterpret_cast<__m128i*>(&bytes[slot][d + i]), _mm512_cvtsepi32_epi8(q));
      }
    }
  }
  __m512i quads[16];
  for (int slot = 0; slot < 16; ++slot) quads[slot] = _mm512_load_si512(bytes[slot]);
  Transpose16(quads);
  for (int64_t d = 0; d < dims; d += 4, to += 64) {
    const __m512i quad = quads[d / 4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(quad));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + 32),
                       _mm512_cvtepi32_epi16(_mm512_srli_epi32(quad, 16)));
  }
}

void PackInt8KTile(const KvTile& tile, const float* scratch, void* k_tile) {
  for (int64_t d = 0; d < tile.head_dim; d += 64) {
    const int64_t dims = std::min<int64_t>(64, tile.head_dim - d);
    PackInt8Keys(scratch + d, tile.v_width, dims,
                 tile.KScales(k_tile) + d / kKeyScaleDims * kTileSlots,
                 static_cast<int8_t*>(k_tile) + d * kTileSlots);
  }
}

// The padding of scratch is zero, so it changes no scale.
void PackInt8VTile(const KvTile& tile, const float* scratch, void* v_tile) {
  alignas(64) float inverses[16];
  _mm512_store_ps(inverses, StoreScales(LargestMagnitudes(scratch, tile.v_width, tile.v_width),
                                        tile.VScales(v_tile)));
  auto* to = static_cast<int8_t*>(v_tile);
  for (int slot = 0; slot < kTileSlots; slot += 2) {
    const float* first = scratch + int64_t{slot} * tile.v_width;
    for (int64_t d = 0; d < tile.v_width; d += 16, to += 32) {
      const __m512i low =
          _mm512_and_si512(Quantized(first + d, inverses[slot]), _mm512_set1_epi32(255));
      const __m512i high = Quantized(first + tile.v_width + d, inverses[slot + 1]);
      const __m512i both = _mm512_or_si512(low, _mm512_slli_epi32(high, 8));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(both));
    }
  }
}

void PackKTile(const KvTile& tile, const float* scratch, void* k_tile) {
  if (tile.form == KvForm::kI8 && tile.head_dim % 32 == 0) {
    return PackInt8KTile(tile, scratch, k_tile);
  }
  if (tile.form != KvForm::kBf16 || tile.head_dim % 32 != 0) {
    PackTileByValue(tile, scratch, /*keys=*/true, k_tile);
    return;
  }
  for (int64_t d = 0; d < tile.head_dim; d += 32) {
    PackKeys32(scratch + d, tile.v_width, static_cast<uint16_t*>(k_tile) + d * kTileSlots);
  }
}

// Words 0, 16, 1, 17, ...: two rows of 16 bf16 side by side become pairs.
inline __m512i PairOrder() {
  alignas(64) static constexpr uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                      21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                      11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_load_si512(kOrder);
}

void PackVTile(const KvTile& tile, const float* scratch, void* v_tile) {
  if (tile.form == KvForm::kI8) return PackInt8VTile(tile, scratch, v_tile);
  if (tile.form == KvForm::kF32) {
    PackTileByValue(tile, scratch, /*keys=*/false, v_tile);
    return;
  }
  const __m512i order = PairOrder();
  auto* to = static_cast<uint16_t*>(v_tile);
  for (int slot = 0; slot < kTileSlots; slot += 2) {
    const float* first = scratch + int64_t{slot} * tile.v_width;
    for (int64_t d = 0; d < tile.v_width; d += 16, to += 32) {
      const __m512 even = _mm512_load_ps(first + d), odd = _mm512_load_ps(first + tile.v_width + d);
      const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
      _mm512_store_si512(to, _mm512_permutexvar_epi16(order, both));
    }
  }
}

}  // namespace

const KvOps kKvAvx512 = kKvTable;

}  // namespace kvasir
