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

// Sums of the four words of each lane, everywhere in it.
__m512i SumLanes(__m512i words) {
  words = _mm512_add_epi32(words, _mm512_shuffle_epi32(words, _MM_PERM_CDAB));
  return _mm512_add_epi32(words, _mm512_shuffle_epi32(words, _MM_PERM_BADC));
}

// Lanes to bf16 in their high halves.
__m512i RoundToBf16(__m512 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  return _mm512_and_si512(rounded, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
}

// QuantizeSteps of four blocks, a lane each.
struct FourSteps {
  __m512 offset, scale, inverse;

  static FourSteps Of(__m512 low, __m512 high) {
    const __m512 one_half = _mm512_set1_ps(0.5f), steps = _mm512_set1_ps(kMostStep);
    const __m512 middle =
        _mm512_add_ps(_mm512_mul_ps(one_half, low), _mm512_mul_ps(one_half, high));
    const __m512 offset = _mm512_castsi512_ps(RoundToBf16(middle));
    const __m512 half = _mm512_max_ps(_mm512_sub_ps(high, offset), _mm512_sub_ps(offset, low));
    const __mmask16 some = _mm512_cmp_ps_mask(half, _mm512_set1_ps(kLeastRange), _CMP_GT_OQ);
    return {offset, _mm512_div_ps(half, steps), _mm512_maskz_div_ps(some, steps, half)};
  }
};

// What StoreSums writes, for four blocks; sums of their first and last 16 quants.
void StoreFourSums(const FourSteps& steps, __m512i first, __m512i last, QuantizedBlock* out) {
  const __m512i all = _mm512_add_epi32(first, last);
  const __m512i sum =
      RoundToBf16(_mm512_add_ps(_mm512_mul_ps(steps.scale, _mm512_cvtepi32_ps(all)),
                                _mm512_mul_ps(steps.offset, _mm512_set1_ps(kQuantizedInputs))));
  const __m512i offset = _mm512_castps_si512(steps.offset);
  const __m512i low = _mm512_srli_epi32(offset, 16);
  const __m512i start = _mm512_sub_epi32(_mm512_set1_epi32(kDotStart), _mm512_slli_epi32(all, 3));
  __m512i head = _mm512_mask_or_epi32(_mm512_castps_si512(steps.scale), 0x2222, low, offset);
  head = _mm512_mask_or_epi32(head, 0x4444, low, sum);
  head = _mm512_mask_mov_epi32(head, 0x8888, start);
  const __m512i rest = _mm512_mask_mov_epi32(first, 0xaaaa, last);
  const auto store = [&]<int kBlock>() {
    _mm_store_si128(reinterpret_cast<__m128i*>(&out[kBlock].scale),
                    _mm512_extracti32x4_epi32(head, kBlock));
    _mm_store_si128(reinterpret_cast<__m128i*>(&out[kBlock].quant_sums[0]),
                    _mm512_extracti32x4_epi32(rest, kBlock));
  };
  store.template operator()<0>();
  store.template operator()<1>();
  store.template operator()<2>();
  store.template operator()<3>();
}

// Two blocks' quants to their places: word 4 L + h of a lane L, and 4 L + 2 + h of the second
// block, holds inputs 16 h + 4 L and the next three. Returns what the sums of the first and last 16
// of each block are made of, a lane each.
__m512i StoreQuants(__m512i packed, QuantizedBlock* out) {
  const __m512i words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i evens =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  const __m512i quants = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, packed), evens);
  _mm256_store_si256(reinterpret_cast<__m256i*>(out[0].quants), _mm512_castsi512_si256(quants));
  _mm256_store_si256(reinterpret_cast<__m256i*>(out[1].quants),
                     _mm512_extracti64x4_epi64(quants, 1));
  return Vector::Dot<false>(_mm512_setzero_si512(), Vector::Ones(), quants);
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
  const __m512 range = _mm512_sub_ps(high, low), most = _mm512_set1_ps(kMostRange);
  if (nan != 0 || _mm512_cmp_ps_mask(range, most, _CMP_NLE_UQ) != 0) {
    return QuantizeBlocks(x, 4, out);
  }
  const FourSteps steps = FourSteps::Of(low, high);

  __m512i quants[4];  // 16 bits; of every 8 the first four from the first 16 inputs
  const auto quantize = [&]<int kBlock>() {
    const __m512 middle = Spread<kBlock>(steps.offset), factor = Spread<kBlock>(steps.inverse);
    const auto step = [&](__m512 v) {
      return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(v, middle), factor));
    };
    quants[kBlock] = _mm512_packs_epi32(step(values[2 * kBlock]), step(values[2 * kBlock + 1]));
  };
  quantize.template operator()<0>();
  quantize.template operator()<1>();
  quantize.template operator()<2>();
  quantize.template operator()<3>();
  const __m512i ends[2] = {StoreQuants(_mm512_packs_epi16(quants[0], quants[1]), out),
                           StoreQuants(_mm512_packs_epi16(quants[2], quants[3]), out + 2)};
  StoreFourSums(steps, SumLanes(_mm512_shuffle_i32x4(ends[0], ends[1], 0x88)),
                SumLanes(_mm512_shuffle_i32x4(ends[0], ends[1], 0xdd)), out);
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
