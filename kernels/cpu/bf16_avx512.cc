// Products in bf16 with AVX-512. Tile: 12 rows x 32 outputs, 24 sums, two words of weights and one
// broadcast in 27 of 32 registers.
#include <algorithm>

#include "kernels/cpu/bf16_ops.h"
#include "kernels/cpu/matmul_vector_avx512.h"

namespace kvasir {
namespace {

constexpr int kTileRows = 12;
constexpr int kTilePanels = 2;
constexpr int kDirectRows = 96;
constexpr int kKernelRows = 16;  // of the widest direct kernel
constexpr int kPairs = 16;       // of a block
constexpr int64_t kPairBytes = 64;
constexpr int64_t kBlockBytes = kPairs * kPairBytes;  // of a panel
constexpr int64_t kPrefetchBytes = 4096;              // ahead of the read position

// 16 outputs' weights of two inputs, bf16 [16][2].
using Pairs = __m512i;

// sums + products of both halves. Written out: GCC 12 copies the sums before each of these
// instructions.
KVASIR_INLINE __m512 Dot(__m512 sums, Pairs weights, Pairs values) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(weights), "v"(values));
  return sums;
}

KVASIR_INLINE Pairs RoundToPairs(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// [2][16] to [16][2].
KVASIR_INLINE Pairs Interleave(__m512i rows) {
  const __m512i order = _mm512_setr_epi32(
      0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008,
      0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
  return _mm512_permutexvar_epi16(order, rows);
}

struct Bf16Weights {
  static KVASIR_INLINE Pairs Load(const uint8_t* at) { return Interleave(_mm512_loadu_si512(at)); }
};
struct F16Weights {
  static KVASIR_INLINE Pairs Load(const uint8_t* at) {
    return Interleave(RoundToPairs(Vector::LoadF16(at), Vector::LoadF16(at + 32)));
  }
};

// The pair at `at` of a row that ends after `inputs` more inputs.
template <class Weights>
Pairs LoadRest(const uint8_t* at, int64_t inputs) {
  alignas(64) uint8_t two[kPairBytes] = {};
  const int64_t bytes = std::clamp<int64_t>(inputs, 0, 2) * kPairBytes / 2;
  __builtin_memcpy(two, at, static_cast<size_t>(bytes));
  return Weights::Load(two);
}

template <class Use>
void WithWeights(PackedKind kind, const Use& use) {
  if (kind == PackedKind::kF16) return use.template operator()<F16Weights>();
  use.template operator()<Bf16Weights>();
}

// ---- straight from packed memory
// -----------------------------------------------------------------

// The pairs at hand of R rows. A base pointer for three rows: the others are base + stride and
// base + 2 * stride, which one x86 address can say, so that all of them stay in registers.
template <int R>
struct Rows {
  static constexpr int kBases = (R + 2) / 3;
  const uint32_t* bases[kBases];
  int64_t stride;

  KVASIR_INLINE Rows(const Bf16Block* x, int64_t block_stride) : stride(block_stride * kPairs) {
    KVASIR_UNROLL
    for (int i = 0; i < kBases; ++i) bases[i] = x->pairs + 3 * i * stride;
  }
  KVASIR_INLINE Pairs Pair(int r, int pair) const {
    return _mm512_set1_epi32(static_cast<int>(bases[r / 3][(r % 3) * stride + pair]));
  }
  KVASIR_INLINE void Advance(int pairs) {
    KVASIR_UNROLL
    for (int i = 0; i < kBases; ++i) bases[i] += pairs;
  }
};

// c [R] rows of 16, c_stride apart.
template <class Weights, int R>
void DirectPanel(const uint8_t* panel, int64_t inputs, const Bf16Block* x, int64_t x_stride,
                 float* c, int64_t c_stride) {
  __m512 sums[R];
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps();
  Rows<R> rows(x, x_stride);
  const auto add = [&](Pairs weights, int pair) __attribute__((always_inline)) {
    KVASIR_UNROLL
    for (int r = 0; r < R; ++r) sums[r] = Dot(sums[r], weights, rows.Pair(r, pair));
  };
  constexpr int kUnrolled = 4;
  const int64_t whole = inputs / Bf16Ops::kBlockInputs * kPairs;
  for (const uint8_t* const end = panel + whole * kPairBytes; panel != end;
       panel += kUnrolled * kPairBytes) {
    KVASIR_UNROLL
    for (int pair = 0; pair < kUnrolled; ++pair) {
      Vector::Prefetch(panel + pair * kPairBytes + kPrefetchBytes);
      add(Weights::Load(panel + pair * kPairBytes), pair);
    }
    rows.Advance(kUnrolled);
  }
  if (const int64_t rest = inputs - 2 * whole; rest > 0) {
    for (int pair = 0; pair < kPairs; ++pair) {
      add(LoadRest<Weights>(panel + pair * kPairBytes, rest - 2 * pair), pair);
    }
  }
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) Vector::Store(c + r * c_stride, sums[r]);
}

// Up to R rows.
template <class Weights, int R>
void DirectRows(const PackedView& w, int64_t first_panel, int panels, const Bf16Block* x,
                int64_t stride, int rows, float* c) {
  if (rows < R) {
    if constexpr (R > 1) DirectRows<Weights, R - 1>(w, first_panel, panels, x, stride, rows, c);
    return;
  }
  for (int p = 0; p < panels; ++p) {
    DirectPanel<Weights, R>(w.panel(first_panel + p), w.inputs, x, stride, c + p * kPanelOutputs,
                            panels * kPanelOutputs);
  }
}

// Rows in equal parts: the second and later ones read a panel from the cache.
void Direct(const PackedView& w, int64_t first_panel, int panels, const Bf16Block* x,
            int64_t stride, int rows, float* c) {
  WithWeights(w.kind, [&]<class Weights>() {
    const int parts = (rows + kKernelRows - 1) / kKernelRows;
    for (int part = 0; part < parts; ++part) {
      const int first = part * rows / parts, count = (part + 1) * rows / parts - first;
      DirectRows<Weights, kKernelRows>(w, first_panel, panels, x + first * stride, stride, count,
                                       c + first * panels * kPanelOutputs);
    }
  });
}

// ---- unpacked panels
// -----------------------------------------------------------------------------

template <class Weights>
void UnpackBlock(const uint8_t* from, int64_t inputs, uint8_t* b) {
  for (int pair = 0; pair < kPairs; ++pair) {
    const uint8_t* const at = from + pair * kPairBytes;
    const Pairs weights =
        2 * pair + 2 <= inputs ? Weights::Load(at) : LoadRest<Weights>(at, inputs - 2 * pair);
    Vector::StoreI(b + pair * kPairBytes, weights);
  }
}

void Unpack(const PackedView& w, int64_t first_panel, int panels, int64_t block_begin,
            int64_t block_end, uint8_t* b) {
  WithWeights(w.kind, [&]<class Weights>() {
    for (int64_t block = block_begin; block < block_end; ++block) {
      const int64_t at = block * kBlockBytes, inputs = w.inputs - block * Bf16Ops::kBlockInputs;
      for (int p = 0; p < kTilePanels; ++p, b += kBlockBytes) {
        if (p >= panels) {
          __builtin_memset(b, 0, kBlockBytes);
          continue;
        }
        const uint8_t* const next = w.panel(first_panel + p + kTilePanels) + at;
        for (int64_t line = 0; line < kBlockBytes; line += 64) Vector::PrefetchFar(next + line);
        UnpackBlock<Weights>(w.panel(first_panel + p) + at, inputs, b);
      }
    }
  });
}

// c [R][P * 16] = (resume ? c : 0) + x * b over `blocks` blocks.
template <int R, int P>
void Tile(const Bf16Block* x, int64_t stride, const uint8_t* b, int64_t blocks, bool resume,
          float* c) {
  __m512 sums[R][P];
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int p = 0; p < P; ++p) {
      sums[r][p] = resume ? Vector::Load(c + 16 * (r * P + p)) : Vector::Zero();
    }
  }
  Rows<R> rows(x, stride);
  for (const uint8_t* const end = b + blocks * P * kBlockBytes; b != end; b += P * kBlockBytes) {
    KVASIR_UNROLL
    for (int pair = 0; pair < kPairs; ++pair) {
      Pairs weights[P];
      KVASIR_UNROLL
      for (int p = 0; p < P; ++p) {
        weights[p] = Vector::LoadI(b + p * kBlockBytes + pair * kPairBytes);
      }
      KVASIR_UNROLL
      for (int r = 0; r < R; ++r) {
        const Pairs value = rows.Pair(r, pair);
        KVASIR_UNROLL
        for (int p = 0; p < P; ++p) sums[r][p] = Dot(sums[r][p], weights[p], value);
      }
    }
    rows.Advance(kPairs);
  }
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int p = 0; p < P; ++p) Vector::Store(c + 16 * (r * P + p), sums[r][p]);
  }
}

template <int R>
void MultiplyRows(const Bf16Block* x, int64_t stride, int rows, const uint8_t* b, int64_t blocks,
                  bool resume, float* c) {
  if (rows == R) return Tile<R, kTilePanels>(x, stride, b, blocks, resume, c);
  if constexpr (R > 1) MultiplyRows<R - 1>(x, stride, rows, b, blocks, resume, c);
}

void Multiply(PackedKind, const Bf16Block* x, int64_t stride, int rows, const uint8_t* b,
              int64_t blocks, bool resume, float* c) {
  MultiplyRows<kTileRows>(x, stride, rows, b, blocks, resume, c);
}

// ---- activations
// ---------------------------------------------------------------------------------

// The first `count` of 16; zeros beyond.
__m512 LoadSome(const float* x, int64_t count) {
  const auto some = static_cast<unsigned>(std::clamp<int64_t>(count, 0, 16));
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << some) - 1), x);
}

void Round(const float* x, int64_t inputs, Bf16Block* out) {
  for (; inputs >= 32; inputs -= 32, x += 32, ++out) {
    _mm512_store_si512(out, RoundToPairs(Vector::Load(x), Vector::Load(x + 16)));
  }
  if (inputs == 0) return;
  _mm512_store_si512(out, RoundToPairs(LoadSome(x, inputs), LoadSome(x + 16, inputs - 16)));
}

}  // namespace

const Bf16Ops kBf16Avx512 = {
    .direct_rows = kDirectRows,
    .direct_panels = 1,
    .tile_rows = kTileRows,
    .tile_panels = kTilePanels,
    .round = Round,
    .direct = Direct,
    .unpack = Unpack,
    .multiply = Multiply,
};

}  // namespace kvasir
