// clang-format off
#include "kernels/cpu/simd_avx512.h"  // the instruction set comes first
#include "kernels/cpu/kv_kernels.h"
// clang-format on

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

void PackKTile(const KvTile& tile, const float* scratch, void* k_tile) {
  if (!tile.bf16 || tile.head_dim % 32 != 0) {
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
  if (!tile.bf16) {
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
