// Matrix products with AVX2 and FMA; a 16-lane vector is two registers. Tile: 6 rows x 16 outputs,
// 12 accumulators, two weights and one broadcast in 15 of 16 registers.
#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"

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
};

constexpr int kTileRows = 6;
constexpr int kTilePanels = 1;
constexpr int kDirectPanels = 2;
constexpr int kDirectRows = 4;

void Direct(const PackedView& w, int64_t first_panel, int panels, const float* x, int64_t stride,
            int rows, float* c) {
  WithDecoder<Vector>(w.kind, [&]<class Decoder>() {
    const auto run = [&](auto kernel) { kernel(w, first_panel, panels, x, stride, rows, c); };
    if (rows == 1) return run(RunDirect<Vector, Decoder, 2, 1>);
    if (rows == 2) return run(RunDirect<Vector, Decoder, 1, 2>);
    run(RunDirect<Vector, Decoder, 1, 4>);
  });
}

}  // namespace

const MatMulOps kMatMulAvx2 = {
    .direct_rows = kDirectRows,
    .direct_panels = kDirectPanels,
    .tile_rows = kTileRows,
    .tile_panels = kTilePanels,
    .direct = Direct,
    .decode = Decode<Vector, kTilePanels>,
    .multiply = Multiply<Vector, kTileRows, kTilePanels>,
    .finish = Finish<Vector>,
};

}  // namespace kvasir
