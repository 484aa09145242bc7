// Products in 8 bits with AVX2.
#include "kernels/cpu/int8_kernels.h"
#include "kernels/cpu/matmul_vector_avx2.h"

namespace kvasir {
namespace {

void Direct(const PackedView& w, int64_t first_panel, int panels, const QuantizedBlock* x,
            int64_t stride, int rows, float* c) {
  WithInt8Block<Vector>(w.kind, [&]<class Block>() {
    const auto run = [&](auto kernel) { kernel(w, first_panel, panels, x, stride, rows, c); };
    if (rows == 1) return run(RunInt8Direct<Vector, Block, 1, 1>);
    if (rows == 2) return run(RunInt8Direct<Vector, Block, 1, 2>);
    run(RunInt8Direct<Vector, Block, 1, 3>);
  });
}

float Reduce(__m256 v, __m128 (*fold)(__m128, __m128)) {
  __m128 four = fold(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = fold(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(fold(four, _mm_movehdup_ps(four)));
}
__m128 Least(__m128 a, __m128 b) { return _mm_min_ps(a, b); }
__m128 Greatest(__m128 a, __m128 b) { return _mm_max_ps(a, b); }

int SumOf(__m128i words) {
  words = _mm_add_epi32(words, _mm_shuffle_epi32(words, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(words, _mm_shuffle_epi32(words, 0xb1)));
}

void QuantizeOne(const float* x, QuantizedBlock* out) {
  __m256 values[4];
  for (int i = 0; i < 4; ++i) values[i] = _mm256_loadu_ps(x + 8 * i);
  const float low = Reduce(
      _mm256_min_ps(_mm256_min_ps(values[0], values[1]), _mm256_min_ps(values[2], values[3])),
      Least);
  const float high = Reduce(
      _mm256_max_ps(_mm256_max_ps(values[0], values[1]), _mm256_max_ps(values[2], values[3])),
      Greatest);
  const __m256 nan = _mm256_or_ps(_mm256_cmp_ps(values[0], values[1], _CMP_UNORD_Q),
                                  _mm256_cmp_ps(values[2], values[3], _CMP_UNORD_Q));
  if (_mm256_movemask_ps(nan) != 0 || !(high - low <= kMostRange)) {
    return QuantizeBlocks(x, 1, out);
  }
  const QuantizeSteps steps = QuantizeSteps::Of(low, high);
  __m256i quants[4];
  for (int i = 0; i < 4; ++i) {
    const __m256 centred = _mm256_sub_ps(values[i], _mm256_set1_ps(steps.offset));
    quants[i] = _mm256_cvtps_epi32(_mm256_mul_ps(centred, _mm256_set1_ps(steps.inverse)));
  }
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(quants[0], quants[1]),
                                           _mm256_packs_epi32(quants[2], quants[3]));
  const __m256i ordered =
      _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  // Of every 8 bytes the even ones first.
  const __m128i evens = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  _mm256_store_si256(reinterpret_cast<__m256i*>(out->quants),
                     _mm256_shuffle_epi8(ordered, _mm256_broadcastsi128_si256(evens)));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), ordered);
  const __m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  StoreSums(steps, SumOf(_mm256_castsi256_si128(sums)), SumOf(_mm256_extracti128_si256(sums, 1)),
            out);
}

void Quantize(const float* x, int64_t inputs, QuantizedBlock* out) {
  const float* const end = x + inputs;
  for (; x < end; x += kQuantizedInputs, ++out) QuantizeOne(x, out);
}

}  // namespace

const Int8Ops kInt8Avx2 = {
    .direct_rows = 3,
    .direct_panels = 1,
    .tile_rows = 3,
    .tile_panels = 1,
    .round = Quantize,
    .direct = Direct,
    .unpack = UnpackPanels<Vector, 1>,
    .multiply = Int8Multiply<Vector, 3, 1>,
};

}  // namespace kvasir
