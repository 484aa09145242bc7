// The inner loops of Int8Ops, written once over a 16-lane `Vector` (matmul_vector_<isa>.h).
// Included by the int8_<isa>.cc files alone; internal linkage, because each of them compiles it
// for other instructions.
#pragma once

#include <cstdint>

#include "kernels/cpu/inline.h"
#include "kernels/cpu/int8_ops.h"
#include "kernels/cpu/matmul_decoders.h"

namespace kvasir {
namespace {

// Bytes ahead of the read position to ask for. Measured on Zen 5 with a 96 MB model, one row, share
// of the DRAM roof: 4 panels side by side 63-75 % at any distance, one panel 77 % at 1 KiB, 83 % at
// 2, 92 % at 4, 81 % at 8.
constexpr int64_t kInt8PrefetchBytes = 4096;

// One block of 32 inputs of one panel: eight words of four inputs for each of 16 outputs.
template <class V, PackedKind kKind>
struct Int8Block {
  using F = typename V::F;
  static constexpr bool kFine = kKind == PackedKind::kQ8SuperFine;
  static constexpr bool kSuper =
      kFine || kKind == PackedKind::kQ4Super || kKind == PackedKind::kQ8Super;
  static constexpr PackedTraits kTraits = TraitsOf(kKind);
  static constexpr bool kNibbles = kTraits.quant_bits == 4;
  static constexpr int kScales = kFine ? 2 : 1;  // a block
  static constexpr int kQuantBytes = kNibbles ? 256 : 512;
  static constexpr int kBlockBytes = kTraits.unit_bytes / (kTraits.unit_inputs / 32);

  static constexpr PackedKind kPacked = kKind;
  static constexpr bool kCentred = IsCentred(kKind);
  static constexpr int32_t kCentre = CentreOf(kKind);

  const uint8_t* quants;
  F scale[kScales], ratio;  // ratio: r, unless kCentred

  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    const int64_t sub = kSuper ? block % 8 : 0;
    const uint8_t* const unit = panel + (kSuper ? block / 8 : block) * kTraits.unit_bytes;
    quants = unit + kTraits.quant_offset + kQuantBytes * sub;
    if constexpr (kFine) {
      const F super = V::LoadF16(unit);
      for (int half = 0; half < 2; ++half) {
        scale[half] = V::Mul(super, V::LoadS8(unit + 64 + 16 * (2 * sub + half)));
      }
    } else if constexpr (kSuper) {
      F minimum;
      LoadSuperScales<V>(unit, sub, &scale[0], &minimum);
      SetRatio(minimum);
    } else {
      scale[0] = V::LoadF16(unit);
      if constexpr (!kCentred) SetRatio(V::LoadF16(unit + 32));
    }
  }
  KVASIR_INLINE typename V::I Word(int word) const {
    if constexpr (!kNibbles) return V::LoadI(quants + 64 * word);
    const typename V::I words = V::LoadI(quants + 64 * (word / 2));
    return word % 2 == 0 ? V::LowNibbles(words) : V::HighNibbles(words);
  }

  // The sum of a part's quants, to become that of u - c. 4-bit quants are added as bytes first: a
  // block's eight words, 120 at most, fit.
  struct QuantSum {
    typename V::I sum = kNibbles ? V::ZeroI() : V::BeginSum(kQuantStart);

    KVASIR_INLINE void Add(typename V::I weights) {
      sum = kNibbles ? V::AddBytes(sum, weights) : V::template Dot<false>(sum, weights, V::Ones());
    }
    KVASIR_INLINE F End() const {
      if constexpr (!kNibbles) return V::template EndSum<false>(sum, kQuantStart);
      return V::template EndSum<true>(
          V::template Dot<true>(V::BeginSum(kQuantStart), sum, V::Ones()), kQuantStart);
    }
  };
  // Where the sum of a part's quants begins that ends as the sum of u - c.
  static constexpr int32_t kQuantStart = kDotStart - kCentre * (kQuantizedInputs / kScales);
  // Pairs (sum t, r) from that sum.
  KVASIR_INLINE typename V::I Correction(F quant_sum) const {
    if constexpr (!kCentred) return V::MakePairs(quant_sum, ratio);
    return V::MakePairs(quant_sum, V::BelowBf16(quant_sum));
  }

 private:
  // Where all weights are the minimum, the scale is 0 and anything may take its place that is small
  // beside it.
  KVASIR_INLINE void SetRatio(F minimum) {
    static constexpr float kSmall = 0x1p-24f;
    scale[0] = V::OrWhereZero(scale[0], V::Mul(minimum, V::Broadcast(&kSmall)));
    static constexpr float kCentreValue = kCentre;
    ratio = V::Add(V::Ratio(minimum, scale[0]), V::Broadcast(&kCentreValue));
  }
};

// Where the sum of products with a block, or with half of it, begins.
template <bool kNibbles, bool kFine>
KVASIR_INLINE int32_t StartOf(PackedKind kind, const QuantizedBlock& x, int part) {
  if constexpr (kNibbles) return x.start;
  const int32_t sum = kFine ? x.quant_sums[part] : x.quant_sums[0] + x.quant_sums[1];
  return kDotStart - CentreOf(kind) * sum;
}

// What goes with the pairs of a block. The second one of centred 4-bit weights is 0.
template <bool kNibbles>
KVASIR_INLINE uint32_t PairOf(PackedKind kind, const QuantizedBlock& x) {
  return !kNibbles && IsCentred(kind) ? x.offsets : x.correction;
}

// The products of one block (or half of one) added to a row's sums of 16 outputs.
template <class V, bool kNibbles>
KVASIR_INLINE typename V::F AddBlock(typename V::F sums, typename V::I dot, int32_t start,
                                     typename V::F scale, typename V::I correction,
                                     const QuantizedBlock& x, uint32_t pair) {
  const typename V::F products = V::template EndSum<kNibbles>(dot, start);
  const typename V::F terms = V::Mul(products, V::Broadcast(&x.scale));
  return V::Fma(V::AddPairs(terms, correction, pair), scale, sums);
}

template <class V, class Block, int P, int R>
struct Int8Direct {
  using F = typename V::F;
  using I = typename V::I;

  // Asks for what this call, or the call for the next P panels, reads soon.
  static KVASIR_INLINE void Prefetch(const uint8_t* panel, int64_t panel_bytes, int64_t offset) {
    int64_t ahead = offset + kInt8PrefetchBytes;
    if (ahead >= panel_bytes) ahead += (P - 1) * panel_bytes;
    KVASIR_UNROLL
    for (int line = 0; line < (Block::kBlockBytes + 63) / 64; ++line) {
      V::Prefetch(panel + ahead + 64 * line);
    }
  }

  // The words of one scale: all eight, or four of a half.
  static KVASIR_INLINE void AddPart(const Block* blocks, int part, const QuantizedBlock* const* x,
                                    int64_t at, F (&sums)[R][P]) {
    constexpr int kWords = 8 / Block::kScales;
    I dots[R][P];
    typename Block::QuantSum quant_sums[P];
    const auto start = [&](int r) {
      return StartOf<Block::kNibbles, Block::kFine>(Block::kPacked, x[r][at], part);
    };
    KVASIR_UNROLL
    for (int p = 0; p < P; ++p) {
      KVASIR_UNROLL
      for (int r = 0; r < R; ++r) dots[r][p] = V::BeginSum(start(r));
    }
    KVASIR_UNROLL
    for (int word = part * kWords; word < (part + 1) * kWords; ++word) {
      I weights[P];
      KVASIR_UNROLL
      for (int p = 0; p < P; ++p) {
        weights[p] = blocks[p].Word(word);
        quant_sums[p].Add(weights[p]);
      }
      KVASIR_UNROLL
      for (int r = 0; r < R; ++r) {
        const I values = V::BroadcastI(x[r][at].quants + 4 * word);
        KVASIR_UNROLL
        for (int p = 0; p < P; ++p)
          dots[r][p] = V::template Dot<Block::kNibbles>(dots[r][p], weights[p], values);
      }
    }
    KVASIR_UNROLL
    for (int p = 0; p < P; ++p) {
      const I correction = blocks[p].Correction(quant_sums[p].End());
      KVASIR_UNROLL
      for (int r = 0; r < R; ++r) {
        sums[r][p] = AddBlock<V, Block::kNibbles>(
            sums[r][p], dots[r][p], start(r), blocks[p].scale[part], correction, x[r][at],
            PairOf<Block::kNibbles>(Block::kPacked, x[r][at]));
      }
    }
  }

  // c [R][P * 16].
  static void Run(const uint8_t* panels, int64_t panel_bytes, int64_t count,
                  const QuantizedBlock* const* x, float* c) {
    F sums[R][P];
    KVASIR_UNROLL
    for (int r = 0; r < R; ++r) {
      KVASIR_UNROLL
      for (int p = 0; p < P; ++p) sums[r][p] = V::Zero();
    }
    for (int64_t at = 0; at < count; ++at) {
      Block blocks[P];
      KVASIR_UNROLL
      for (int p = 0; p < P; ++p) {
        blocks[p].Begin(panels + p * panel_bytes, at);
        Prefetch(panels + p * panel_bytes, panel_bytes, at * Block::kBlockBytes);
      }
      KVASIR_UNROLL
      for (int part = 0; part < Block::kScales; ++part) AddPart(blocks, part, x, at, sums);
    }
    KVASIR_UNROLL
    for (int r = 0; r < R; ++r) {
      KVASIR_UNROLL
      for (int p = 0; p < P; ++p) V::Store(c + 16 * (r * P + p), sums[r][p]);
    }
  }
};

// Calls use.template operator()<Int8Block<V, kind>>().
template <class V, class Use>
void WithInt8Block(PackedKind kind, const Use& use) {
  switch (kind) {
    case PackedKind::kQ4:
      return use.template operator()<Int8Block<V, PackedKind::kQ4>>();
    case PackedKind::kQ4Min:
      return use.template operator()<Int8Block<V, PackedKind::kQ4Min>>();
    case PackedKind::kQ4Super:
      return use.template operator()<Int8Block<V, PackedKind::kQ4Super>>();
    case PackedKind::kQ8:
      return use.template operator()<Int8Block<V, PackedKind::kQ8>>();
    case PackedKind::kQ8Min:
      return use.template operator()<Int8Block<V, PackedKind::kQ8Min>>();
    case PackedKind::kQ8Super:
      return use.template operator()<Int8Block<V, PackedKind::kQ8Super>>();
    case PackedKind::kQ8SuperFine:
      return use.template operator()<Int8Block<V, PackedKind::kQ8SuperFine>>();
    case PackedKind::kF32:
    case PackedKind::kF16:
    case PackedKind::kBF16:
      break;
  }
}

// c [rows][panels * 16] by a kernel of P panels and R rows. Missing rows repeat the last one, and
// the panels that do not fill a kernel run one by one, each in the place of all P: spilt work at
// the edges costs less than more kernels would.
template <class V, class Block, int P, int R>
void RunInt8Direct(const PackedView& w, int64_t first_panel, int panels, const QuantizedBlock* x,
                   int64_t stride, int rows, float* c) {
  const QuantizedBlock* pointers[R];
  for (int r = 0; r < R; ++r) pointers[r] = x + (r < rows ? r : rows - 1) * stride;
  alignas(64) float sums[R * P * 16];
  for (int done = 0; done < panels;) {
    const int count = panels - done >= P ? P : 1;
    Int8Direct<V, Block, P, R>::Run(w.panel(first_panel + done), count == P ? w.panel_bytes : 0,
                                    w.inputs / kQuantizedInputs, pointers, sums);
    for (int r = 0; r < rows; ++r) {
      for (int p = 0; p < count; ++p) {
        V::Store(c + 16 * (r * panels + done + p), V::Load(sums + 16 * (r * P + p)));
      }
    }
    done += count;
  }
}

// ---- unpacked panels
// -----------------------------------------------------------------------------

template <class V, class Block>
void UnpackBlock(const Block& block, uint8_t* b) {
  constexpr int kWords = 8 / Block::kScales;
  for (int part = 0; part < Block::kScales; ++part) {
    typename Block::QuantSum quant_sum;
    KVASIR_UNROLL
    for (int word = part * kWords; word < (part + 1) * kWords; ++word) {
      const typename V::I weights = block.Word(word);
      quant_sum.Add(weights);
      V::StoreI(b + 64 * word, weights);
    }
    uint8_t* const scales = b + 512 + 128 * part;
    V::Store(reinterpret_cast<float*>(scales), block.scale[part]);
    V::StoreI(scales + 64, block.Correction(quant_sum.End()));
  }
}

template <class V, int kTilePanels>
void UnpackPanels(const PackedView& w, int64_t first_panel, int panels, int64_t block_begin,
                  int64_t block_end, uint8_t* b) {
  const int64_t bytes = UnpackedBlockBytes(w.kind);
  WithInt8Block<V>(w.kind, [&]<class Block>() {
    for (int64_t at = block_begin; at < block_end; ++at) {
      for (int p = 0; p < kTilePanels; ++p, b += bytes) {
        if (p < panels) {
          const uint8_t* const next =
              w.panel(first_panel + p + kTilePanels) + at * Block::kBlockBytes;
          KVASIR_UNROLL
          for (int line = 0; line < (Block::kBlockBytes + 63) / 64; ++line) {
            V::PrefetchFar(next + 64 * line);
          }
          Block block;
          block.Begin(w.panel(first_panel + p), at);
          UnpackBlock<V>(block, b);
        } else {
          __builtin_memset(b, 0, static_cast<size_t>(bytes));
        }
      }
    }
  });
}

// c [R][P * 16] = (resume ? c : 0) + x * b over `blocks` blocks.
template <class V, bool kFine, bool kNibbles, int R, int P>
void Int8Tile(PackedKind kind, const QuantizedBlock* x, int64_t stride, const uint8_t* b,
              int64_t blocks, bool resume, float* c) {
  using F = typename V::F;
  using I = typename V::I;
  constexpr int kScales = kFine ? 2 : 1;
  constexpr int kWords = 8 / kScales;
  constexpr int64_t kBytes = 512 + kScales * 128;
  F sums[R][P];
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int p = 0; p < P; ++p) sums[r][p] = resume ? V::Load(c + 16 * (r * P + p)) : V::Zero();
  }
  // A base pointer for three rows, as in the fp32 tile.
  constexpr int kBases = (R + 2) / 3;
  const QuantizedBlock* bases[kBases];
  KVASIR_UNROLL
  for (int i = 0; i < kBases; ++i) bases[i] = x + 3 * i * stride;
  const auto row = [&](int r) __attribute__((always_inline))->const QuantizedBlock& {
    return bases[r / 3][(r % 3) * stride];
  };
  for (const uint8_t* const end = b + blocks * P * kBytes; b != end; b += P * kBytes) {
    KVASIR_UNROLL
    for (int part = 0; part < kScales; ++part) {
      I dots[R][P];
      KVASIR_UNROLL
      for (int r = 0; r < R; ++r) {
        const I start = V::BeginSum(StartOf<kNibbles, kFine>(kind, row(r), part));
        KVASIR_UNROLL
        for (int p = 0; p < P; ++p) dots[r][p] = start;
      }
      KVASIR_UNROLL
      for (int word = part * kWords; word < (part + 1) * kWords; ++word) {
        I weights[P];
        KVASIR_UNROLL
        for (int p = 0; p < P; ++p) weights[p] = V::LoadI(b + p * kBytes + 64 * word);
        KVASIR_UNROLL
        for (int r = 0; r < R; ++r) {
          const I values = V::BroadcastI(row(r).quants + 4 * word);
          KVASIR_UNROLL
          for (int p = 0; p < P; ++p)
            dots[r][p] = V::template Dot<kNibbles>(dots[r][p], weights[p], values);
        }
      }
      KVASIR_UNROLL
      for (int r = 0; r < R; ++r) {
        const QuantizedBlock& block = row(r);
        const int32_t start = StartOf<kNibbles, kFine>(kind, block, part);
        KVASIR_UNROLL
        for (int p = 0; p < P; ++p) {
          const uint8_t* const scales = b + p * kBytes + 512 + 128 * part;
          sums[r][p] = AddBlock<V, kNibbles>(
              sums[r][p], dots[r][p], start, V::Load(reinterpret_cast<const float*>(scales)),
              V::LoadI(scales + 64), block, PairOf<kNibbles>(kind, block));
        }
      }
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

template <class V, bool kFine, bool kNibbles, int R, int P>
void Int8MultiplyRows(PackedKind kind, const QuantizedBlock* x, int64_t stride, int rows,
                      const uint8_t* b, int64_t blocks, bool resume, float* c) {
  if (rows == R) return Int8Tile<V, kFine, kNibbles, R, P>(kind, x, stride, b, blocks, resume, c);
  if constexpr (R > 1) {
    Int8MultiplyRows<V, kFine, kNibbles, R - 1, P>(kind, x, stride, rows, b, blocks, resume, c);
  }
}

template <class V, int R, int P>
void Int8Multiply(PackedKind kind, const QuantizedBlock* x, int64_t stride, int rows,
                  const uint8_t* b, int64_t blocks, bool resume, float* c) {
  const bool nibbles = TraitsOf(kind).quant_bits == 4;
  const auto run = kind == PackedKind::kQ8SuperFine ? Int8MultiplyRows<V, true, false, R, P>
                   : nibbles                        ? Int8MultiplyRows<V, false, true, R, P>
                                                    : Int8MultiplyRows<V, false, false, R, P>;
  run(kind, x, stride, rows, b, blocks, resume, c);
}

// ---- activations
// ---------------------------------------------------------------------------------

// The nearest bf16 value, as a float; ties to even.
inline float RoundToBf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// (low, high) as one word, each rounded to bf16.
inline uint32_t Bf16Pair(float low, float high) {
  low = RoundToBf16(low);
  high = RoundToBf16(high);
  uint32_t bits[2];
  __builtin_memcpy(&bits[0], &low, sizeof low);
  __builtin_memcpy(&bits[1], &high, sizeof high);
  return bits[0] >> 16 | bits[1];
}

// The most steps to either side of the middle.
inline constexpr float kMostStep = 127.0f;
inline constexpr float kMostRange = 3.4e38f;
// Below this everything is its middle: the inverse of a step would overflow.
inline constexpr float kLeastRange = 1e-35f;
inline constexpr float kNoValues[kQuantizedInputs] = {};

// The steps of one block. Every instruction set quantises to the same bits.
struct QuantizeSteps {
  float offset, scale, inverse;

  static QuantizeSteps Of(float low, float high) {
    const float offset = RoundToBf16(0.5f * low + 0.5f * high);
    const float half = high - offset > offset - low ? high - offset : offset - low;
    return {offset, half / kMostStep, half > kLeastRange ? kMostStep / half : 0.0f};
  }
};

// To the nearest integer below 2^22, ties to even, as vectors round.
inline int RoundToInteger(float value) {
  value += kDotStartValue;
  int32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits - kDotStart;
}

// What products need beside the quants; sums of the first and the last 16 of them.
inline void StoreSums(const QuantizeSteps& steps, int first, int last, QuantizedBlock* out) {
  out->scale = steps.scale;
  const float sum =
      steps.scale * static_cast<float>(first + last) + kQuantizedInputs * steps.offset;
  out->offsets = Bf16Pair(steps.offset, steps.offset);
  out->correction = Bf16Pair(steps.offset, sum);
  out->start = kDotStart - 8 * (first + last);
  out->quant_sums[0] = first;
  out->quant_sums[1] = last;
}

inline bool AnyNan(const float* x) {
  bool any = false;
  for (int i = 0; i < kQuantizedInputs; ++i) any |= x[i] != x[i];
  return any;
}

// In portable code.
inline void QuantizeBlocks(const float* rows, int64_t blocks, QuantizedBlock* out) {
  for (; blocks > 0; --blocks, rows += kQuantizedInputs, ++out) {
    const float* x = rows;
    float low = x[0], high = x[0];
    for (int i = 1; i < kQuantizedInputs; ++i) {
      low = x[i] < low ? x[i] : low;
      high = x[i] > high ? x[i] : high;
    }
    QuantizeSteps steps = QuantizeSteps::Of(low, high);
    if (!(high - low <= kMostRange) || AnyNan(x)) {  // must not come out as a number
      steps = {0, __builtin_nanf(""), 0};
      x = kNoValues;
    }
    int sums[2] = {0, 0};
    for (int i = 0; i < kQuantizedInputs; ++i) {
      const int quant = RoundToInteger((x[i] - steps.offset) * steps.inverse);
      sums[i / 16] += quant;
      out->quants[8 * (i / 8) + 4 * (i % 2) + i % 8 / 2] = static_cast<int8_t>(quant);
    }
    StoreSums(steps, sums[0], sums[1], out);
  }
}

}  // namespace
}  // namespace kvasir
