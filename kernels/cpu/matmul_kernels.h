// The inner loops of matrix products, written once over a 16-lane `Vector`. Included by the
// matmul_<isa>.cc files alone; internal linkage, as in matmul_decoders.h.
//
// Three ways to multiply, by the number of rows:
//   naive   decode a block, multiply, one row and one panel at a time (the scalar table);
//   direct  decode in registers and feed several rows and panels at once: few rows, where the
//           packed bytes are what costs;
//   tiled   decode panels to fp32 scratch once, then run a register tile over all rows: many
//           rows, where the multiplications are what costs.
#pragma once

#include <cstdint>

#include "kernels/cpu/matmul_decoders.h"
#include "kernels/cpu/matmul_ops.h"

namespace kvasir {
namespace {

// Bytes ahead of the read position, in each panel read side by side, to ask for. Far more than
// DRAM's latency needs on paper; measured on Zen 5 under a hypervisor: 9 GB/s a core without,
// 20 at 4096, 28 at 8192.
constexpr int64_t kPrefetchBytes = 8192;

template <class V, class Decoder, int P, int R>
struct DirectKernel {
  using F = typename V::F;

  // One group of up to 8 inputs from input k on.
  template <bool kFull>
  static KVASIR_INLINE void Accumulate(const Decoder* decoders, int group, const float* const* x,
                                       int64_t k, int count, F (&sums)[R][P]) {
    typename Decoder::Group groups[P];
    KVASIR_UNROLL
    for (int p = 0; p < P; ++p) groups[p] = decoders[p].Load(group);
    KVASIR_UNROLL
    for (int i = 0; i < 8; ++i) {
      if (!kFull && i >= count) break;
      F weights[P];
      KVASIR_UNROLL
      for (int p = 0; p < P; ++p) weights[p] = decoders[p].Weight(groups[p], i);
      KVASIR_UNROLL
      for (int r = 0; r < R; ++r) {
        const F value = V::Broadcast(x[r] + k + i);
        KVASIR_UNROLL
        for (int p = 0; p < P; ++p) sums[r][p] = V::Fma(value, weights[p], sums[r][p]);
      }
    }
  }

  // Asks for what this call, or the call for the next P panels, reads soon.
  static KVASIR_INLINE void Prefetch(const uint8_t* panel, int64_t panel_bytes, int64_t offset) {
    int64_t ahead = offset + kPrefetchBytes;
    if (ahead >= panel_bytes) ahead += (P - 1) * panel_bytes;
    KVASIR_UNROLL
    for (int line = 0; line < (Decoder::kBlockBytes + 63) / 64; ++line) {
      V::Prefetch(panel + ahead + 64 * line);
    }
  }

  // c [R][P * 16].
  static void Run(const uint8_t* panels, int64_t panel_bytes, int64_t inputs,
                  const float* const* rows, float* c) {
    F sums[R][P];
    KVASIR_UNROLL
    for (int r = 0; r < R; ++r) {
      KVASIR_UNROLL
      for (int p = 0; p < P; ++p) sums[r][p] = V::Zero();
    }
    const float* x[R];
    KVASIR_UNROLL
    for (int r = 0; r < R; ++r) x[r] = rows[r];
    constexpr int kBlock = Decoder::kBlock;
    const int64_t blocks = inputs / kBlock;
    for (int64_t block = 0; block < blocks; ++block) {
      Decoder decoders[P];
      KVASIR_UNROLL
      for (int p = 0; p < P; ++p) {
        const uint8_t* const panel = panels + p * panel_bytes;
        decoders[p].Begin(panel, block);
        Prefetch(panel, panel_bytes, block * Decoder::kBlockBytes);
      }
      KVASIR_UNROLL
      for (int group = 0; group < kBlock / 8; ++group) {
        Accumulate<true>(decoders, group, x, block * kBlock + 8 * group, 8, sums);
      }
    }
    if constexpr (Decoder::kPlain) {
      const int rest = static_cast<int>(inputs - blocks * kBlock);
      if (rest > 0) {
        Decoder decoders[P];
        KVASIR_UNROLL
        for (int p = 0; p < P; ++p) decoders[p].Begin(panels + p * panel_bytes, blocks);
        Accumulate<false>(decoders, 0, x, blocks * kBlock, rest, sums);
      }
    }
    KVASIR_UNROLL
    for (int r = 0; r < R; ++r) {
      KVASIR_UNROLL
      for (int p = 0; p < P; ++p) V::Store(c + 16 * (r * P + p), sums[r][p]);
    }
  }
};

// Writes the inputs [k_begin, k_end) of one panel to b, `stride` floats an input.
template <class V, class Decoder>
void DecodePanel(const uint8_t* panel, int64_t k_begin, int64_t k_end, float* b, int64_t stride) {
  constexpr int kBlock = Decoder::kBlock;
  for (int64_t k = k_begin; k < k_end; k += kBlock) {
    Decoder decoder;
    decoder.Begin(panel, k / kBlock);
    if (!Decoder::kPlain || k + kBlock <= k_end) {
      KVASIR_UNROLL
      for (int group = 0; group < kBlock / 8; ++group) {
        const auto loaded = decoder.Load(group);
        KVASIR_UNROLL
        for (int i = 0; i < 8; ++i, b += stride) V::Store(b, decoder.Weight(loaded, i));
      }
    } else {
      const auto loaded = decoder.Load(0);
      for (int i = 0; i < k_end - k; ++i, b += stride) V::Store(b, decoder.Weight(loaded, i));
    }
  }
}

template <class V, int kTilePanels>
void Decode(const PackedView& w, int64_t first_panel, int panels, int64_t k_begin, int64_t k_end,
            float* b) {
  constexpr int64_t kStride = 16 * kTilePanels;
  for (int p = 0; p < panels; ++p) {
    WithDecoder<V>(w.kind, [&]<class Decoder>() {
      DecodePanel<V, Decoder>(w.panel(first_panel + p), k_begin, k_end, b + 16 * p, kStride);
    });
  }
  for (int p = panels; p < kTilePanels; ++p) {
    for (int64_t k = 0; k < k_end - k_begin; ++k) V::Store(b + k * kStride + 16 * p, V::Zero());
  }
}

// c [R][P * 16] = (resume ? c : 0) + x [R][k] * b [k][P * 16]. Asks for a cache line from `ahead`
// on at every input: memory works while the registers do.
template <class V, int R, int P>
void Tile(const float* x, int64_t stride, const float* b, int64_t k, bool resume,
          const uint8_t* ahead, float* c) {
  using F = typename V::F;
  F sums[R][P];
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int p = 0; p < P; ++p) sums[r][p] = resume ? V::Load(c + 16 * (r * P + p)) : V::Zero();
  }
  // A base pointer for three rows: the others are base + stride and base + 2 * stride, which one
  // x86 address can say, so that all row addresses stay in registers.
  constexpr int kBases = (R + 2) / 3;
  const float* bases[kBases];
  KVASIR_UNROLL
  for (int i = 0; i < kBases; ++i) bases[i] = x + 3 * i * stride;
  for (const float* const end = b + k * 16 * P; b != end; b += 16 * P, ahead += 64) {
    V::PrefetchFar(ahead);
    F weights[P];
    KVASIR_UNROLL
    for (int p = 0; p < P; ++p) weights[p] = V::Load(b + 16 * p);
    KVASIR_UNROLL
    for (int r = 0; r < R; ++r) {
      const F value = V::Broadcast(bases[r / 3] + (r % 3) * stride);
      KVASIR_UNROLL
      for (int p = 0; p < P; ++p) sums[r][p] = V::Fma(value, weights[p], sums[r][p]);
    }
    KVASIR_UNROLL
    for (int i = 0; i < kBases; ++i) bases[i] += 1;
  }
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int p = 0; p < P; ++p) V::Store(c + 16 * (r * P + p), sums[r][p]);
  }
}

template <class V, int R, int P>
void Multiply(const float* x, int64_t stride, int rows, const float* b, int64_t k, bool resume,
              const uint8_t* ahead, float* c) {
  if (rows == R) return Tile<V, R, P>(x, stride, b, k, resume, ahead, c);
  if constexpr (R > 1) Multiply<V, R - 1, P>(x, stride, rows, b, k, resume, ahead, c);
}

template <class V>
void Finish(const float* c, int64_t c_stride, int rows, int64_t cols, const float* bias,
            bool accumulate, float* out, int64_t out_stride) {
  for (int r = 0; r < rows; ++r, c += c_stride, out += out_stride) {
    int64_t col = 0;
    for (; col + 16 <= cols; col += 16) {
      typename V::F value = V::Load(c + col);
      if (bias != nullptr) value = V::Add(value, V::Load(bias + col));
      if (accumulate) value = V::Add(V::Load(out + col), value);
      V::Store(out + col, value);
    }
    for (; col < cols; ++col) {
      float value = c[col];
      if (bias != nullptr) value += bias[col];
      out[col] = accumulate ? out[col] + value : value;
    }
  }
}

// c [rows][panels * 16] by a kernel of P panels and R rows. Missing rows repeat the last one, and
// the panels that do not fill a kernel run one by one, each in the place of all P: spilt work at
// the edges costs less than more kernels would.
template <class V, class Decoder, int P, int R>
void RunDirect(const PackedView& w, int64_t first_panel, int panels, const float* x, int64_t stride,
               int rows, float* c) {
  const float* pointers[R];
  for (int r = 0; r < R; ++r) pointers[r] = x + (r < rows ? r : rows - 1) * stride;
  alignas(64) float sums[R * P * 16];
  int done = 0;
  while (done < panels) {
    const int count = panels - done >= P ? P : 1;
    DirectKernel<V, Decoder, P, R>::Run(w.panel(first_panel + done), count == P ? w.panel_bytes : 0,
                                        w.inputs, pointers, sums);
    for (int r = 0; r < rows; ++r) {
      for (int p = 0; p < count; ++p) {
        V::Store(c + 16 * (r * panels + done + p), V::Load(sums + 16 * (r * P + p)));
      }
    }
    done += count;
  }
}

}  // namespace
}  // namespace kvasir
