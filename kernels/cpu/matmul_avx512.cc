// Matrix products with AVX-512. Tile: 12 rows x 32 outputs, 24 accumulators, two weights and one
// broadcast in 27 of 32 registers.
#include <immintrin.h>

#include "kernels/cpu/matmul_kernels.h"

namespace kvasir {
namespace {

struct Vector {
  using F = __m512;
  using Nibbles = __m512i;

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
};

constexpr int kTileRows = 12;
constexpr int kTilePanels = 2;
constexpr int kDirectPanels = 4;
constexpr int kDirectRows = 8;

// Panels side by side give each core enough independent sums to hide the latency of an addition.
void Direct(const PackedView& w, int64_t first_panel, int panels, const float* x, int64_t stride,
            int rows, float* c) {
  WithDecoder<Vector>(w.kind, [&]<class Decoder>() {
    const auto run = [&](auto kernel) { kernel(w, first_panel, panels, x, stride, rows, c); };
    if (rows == 1) return run(RunDirect<Vector, Decoder, 4, 1>);
    if (rows == 2) return run(RunDirect<Vector, Decoder, 4, 2>);
    if (rows <= 4) return run(RunDirect<Vector, Decoder, 4, 4>);
    if (rows <= 6) return run(RunDirect<Vector, Decoder, 2, 6>);
    run(RunDirect<Vector, Decoder, 2, 8>);
  });
}

}  // namespace

const MatMulOps kMatMulAvx512 = {
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
