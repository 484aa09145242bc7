// Products in 8 bits with AVX-512 VNNI. Tile: 6 rows x 32 outputs, 12 integer and 12 fp32 sums, two
// weights and one broadcast in 27 of 32 registers.
#include "kernels/cpu/int8_kernels.h"
#include "kernels/cpu/matmul_vector_avx512.h"

namespace kvasir {
namespace {

constexpr int kTileRows = 6;
constexpr int kTilePanels = 2;
constexpr int kDirectPanels = 1;
constexpr int kDirectRows = 24;
constexpr int kKernelRows = 12;  // of the widest direct kernel

// One panel at a time: memory is fastest read in order.
template <class Block>
void DirectRows(const PackedView& w, int64_t first_panel, int panels, const QuantizedBlock* x,
                int64_t stride, int rows, float* c) {
  const auto run = [&](auto kernel) { kernel(w, first_panel, panels, x, stride, rows, c); };
  if (rows == 1) return run(RunInt8Direct<Vector, Block, 1, 1>);
  if (rows == 2) return run(RunInt8Direct<Vector, Block, 1, 2>);
  if (rows == 3) return run(RunInt8Direct<Vector, Block, 1, 3>);
  if (rows == 4) return run(RunInt8Direct<Vector, Block, 1, 4>);
  if (rows <= 6) return run(RunInt8Direct<Vector, Block, 1, 6>);
  if (rows <= 8) return run(RunInt8Direct<Vector, Block, 1, 8>);
  run(RunInt8Direct<Vector, Block, 1, kKernelRows>);
}

void Direct(const PackedView& w, int64_t first_panel, int panels, const QuantizedBlock* x,
            int64_t stride, int rows, float* c) {
  WithInt8Block<Vector>(w.kind, [&]<class Block>() {
    const int first = rows > kKernelRows ? (rows + 1) / 2 : rows;
    DirectRows<Block>(w, first_panel, panels, x, stride, first, c);
    if (first == rows) return;
    DirectRows<Block>(w, first_panel, panels, x + first * stride, stride, rows - first,
                      c + first * panels * kPanelOutputs);
  });
}

// ---- activations: four blocks at a time, a 128-bit lane each
// -------------------------------------

// Folds four vectors to one whose lane i holds, four times, the whole of vector i.
template <class Fold>
__m512 FoldFour(const __m512 (&v)[4], const Fold& fold) {
  const __m512 ab =
      fold(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xee));
  const __m512 cd =
      fold(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xee));
  const __m512 all = fold(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  const __m512 pairs = fold(all, _mm512_permute_ps(all, 0xb1));
  return fold(pairs, _mm512_permute_ps(pairs, 0x4e));
}

// Lane i of `v` everywhere.
template <int kLane>
__m512 Spread(__m512 v) {
  return _mm512_shuffle_f32x4(v, v, kLane * 0x55);
}

// Sums of the 16 bytes of each lane.
__m512 SumLanes(const __m128i (&quants)[4]) {
  __m512i all = _mm512_castsi128_si512(quants[0]);
  all = _mm512_inserti32x4(all, quants[1], 1);
  all = _mm512_inserti32x4(all, quants[2], 2);
  all = _mm512_inserti32x4(all, quants[3], 3);
  __m512i sums = Vector::Dot<false>(_mm512_setzero_si512(), Vector::Ones(), all);
  sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_CDAB));
  sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
  return _mm512_cvtepi32_ps(sums);
}

void QuantizeFour(const float* x, QuantizedBlock* out) {
  __m512 values[8], least[4], greatest[4];
  KVASIR_UNROLL
  for (int i = 0; i < 8; ++i) values[i] = _mm512_loadu_ps(x + 16 * i);
  KVASIR_UNROLL
  for (int i = 0; i < 4; ++i) {
    least[i] = _mm512_min_ps(values[2 * i], values[2 * i + 1]);
    greatest[i] = _mm512_max_ps(values[2 * i], values[2 * i + 1]);
  }
  const __m512 low = FoldFour(least, [](__m512 a, __m512 b) { return _mm512_min_ps(a, b); });
  const __m512 high = FoldFour(greatest, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
  __mmask16 nan = 0;
  KVASIR_UNROLL
  for (int i = 0; i < 4; ++i) {
    nan |= _mm512_cmp_ps_mask(values[2 * i], values[2 * i + 1], _CMP_UNORD_Q);
  }
  const __m512 range = _mm512_sub_ps(high, low), steps = _mm512_set1_ps(255.0f);
  const __mmask16 some = _mm512_cmp_ps_mask(range, _mm512_setzero_ps(), _CMP_GT_OQ);
  const __m512 most = _mm512_set1_ps(kMostRange);
  if (nan != 0 || _mm512_cmp_ps_mask(range, most, _CMP_NLE_UQ) != 0) {
    return QuantizeBlocks(x, 4, out);
  }
  const __m512 inverse = _mm512_maskz_div_ps(some, steps, range);
  const __m512 scale = _mm512_div_ps(range, steps);
  const __m512 offset = _mm512_add_ps(low, _mm512_mul_ps(scale, _mm512_set1_ps(128.0f)));

  // Of every 8 bytes the even ones first; less 128.
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  __m128i halves[2][4];
  const auto quantize = [&]<int kBlock>() {
    const __m512 from = Spread<kBlock>(low), factor = Spread<kBlock>(inverse);
    KVASIR_UNROLL
    for (int half = 0; half < 2; ++half) {
      const __m512 scaled = _mm512_mul_ps(_mm512_sub_ps(values[2 * kBlock + half], from), factor);
      const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(scaled));
      halves[half][kBlock] = _mm_xor_si128(_mm_shuffle_epi8(bytes, order), _mm_set1_epi8(-128));
      _mm_store_si128(reinterpret_cast<__m128i*>(out[kBlock].quants + 16 * half),
                      halves[half][kBlock]);
    }
  };
  quantize.template operator()<0>();
  quantize.template operator()<1>();
  quantize.template operator()<2>();
  quantize.template operator()<3>();

  const __m512 first = SumLanes(halves[0]), last = SumLanes(halves[1]);
  const auto sum_of = [&](__m512 quants, float count) {
    return _mm512_add_ps(_mm512_mul_ps(scale, quants),
                         _mm512_mul_ps(offset, _mm512_set1_ps(count)));
  };
  __m512 head = _mm512_mask_mov_ps(scale, 0x2222, offset);
  head = _mm512_mask_mov_ps(head, 0x4444, sum_of(_mm512_add_ps(first, last), 32.0f));
  head = _mm512_mask_mov_ps(head, 0x8888, sum_of(first, 16.0f));
  const __m512 rest = sum_of(last, 16.0f);
  const auto store = [&]<int kBlock>() {
    _mm_store_ps(&out[kBlock].scale, _mm512_extractf32x4_ps(head, kBlock));
    _mm_store_ps(&out[kBlock].halves[1], _mm512_extractf32x4_ps(rest, kBlock));
  };
  store.template operator()<0>();
  store.template operator()<1>();
  store.template operator()<2>();
  store.template operator()<3>();
}

void Quantize(const float* x, int64_t inputs, QuantizedBlock* out) {
  const int64_t blocks = inputs / kQuantizedInputs;
  if (blocks < 4) return QuantizeBlocks(x, blocks, out);
  for (int64_t at = 0; at + 4 <= blocks; at += 4) QuantizeFour(x + at * kQuantizedInputs, out + at);
  const int64_t last = blocks - 4;  // once more for some, to the same bits
  if (blocks % 4 != 0) QuantizeFour(x + last * kQuantizedInputs, out + last);
}

}  // namespace

const Int8Ops kInt8Avx512 = {
    .direct_rows = kDirectRows,
    .direct_panels = kDirectPanels,
    .tile_rows = kTileRows,
    .tile_panels = kTilePanels,
    .round = Quantize,
    .direct = Direct,
    .unpack = UnpackPanels<Vector, kTilePanels>,
    .multiply = Int8Multiply<Vector, kTileRows, kTilePanels>,
};

}  // namespace kvasir
