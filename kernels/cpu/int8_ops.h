// Int8Ops: the inner loops of products of quantised weights with quantised activations, for one
// instruction set.
//
// Over one block of 32 inputs, with activations x = s q + o and weights w = d u + m = d (t + r),
// t = u - c, c the centre of the quants' range, r = m / d + c:
//   sum w x = d (s sum t q + o sum t + r sum x)
// The sum of t q is exact in 32 bits: it begins at -c sum q. The other two products are one
// instruction on bf16 pairs, where there is one: o is a bf16 value, sum t needs no more than 8 bits
// (two parts of 8 for quants of 8 bits, which have no r), and r lies around zero, so that what its
// rounding loses is small. A row's fp32 sum grows by the bracket times d, blocks ascending, on
// every path: a row's sums are the same bits on every path of one table. Plain data and pointers
// only, so that files of any instruction set may include this.
#pragma once

#include <cstdint>

#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/quantized_rows.h"

namespace kvasir {

// c above.
constexpr int32_t CentreOf(PackedKind kind) {
  switch (kind) {
    case PackedKind::kQ8:
      return 128;
    case PackedKind::kQ8SuperFine:
      return 32;
    case PackedKind::kQ8Min:
    case PackedKind::kQ8Super:
      return 16;
    default:
      return 8;
  }
}

// Whether r = 0.
constexpr bool IsCentred(PackedKind kind) {
  return kind == PackedKind::kQ4 || kind == PackedKind::kQ8 || kind == PackedKind::kQ8SuperFine;
}

// Bytes of one unpacked block of a panel: u8 [8][16 lanes][4], then fp32 scale [16], bf16 pairs
// (sum t, r) [16]; Q6_K has these twice, for 16 inputs each.
constexpr int64_t UnpackedBlockBytes(PackedKind kind) {
  return 512 + (kind == PackedKind::kQ8SuperFine ? 2 : 1) * 2 * 64;
}

struct Int8Ops {
  using Block = QuantizedBlock;
  static constexpr int64_t kBlockInputs = kQuantizedInputs;
  // Unpacked panels of a column should lie in the L1 cache: 24 blocks are 768 inputs. Sums of
  // longer rows wait in the scratch between blocks, so that the order of additions stays the same.
  static constexpr int64_t kInputBlocks = 24;
  static constexpr int64_t kMaxUnpackedBlockBytes = UnpackedBlockBytes(PackedKind::kQ8SuperFine);
  static constexpr bool Takes(PackedKind kind) { return TraitsOf(kind).quant_bits <= 8; }

  // `direct` takes up to direct_rows rows and direct_panels panels straight from packed memory.
  int direct_rows;
  int direct_panels;
  // `multiply` takes up to tile_rows rows and exactly tile_panels unpacked panels.
  int tile_rows;
  int tile_panels;

  // x [inputs] -> out [inputs / 32].
  void (*round)(const float* x, int64_t inputs, QuantizedBlock* out);
  // c [rows][panels * 16] = x [rows][w.inputs / 32] (x_stride blocks apart) * panels^T.
  void (*direct)(const PackedView& w, int64_t first_panel, int panels, const QuantizedBlock* x,
                 int64_t x_stride, int rows, float* c);
  // b [block_end - block_begin][tile_panels] unpacked blocks, zeros for the missing panels. Asks
  // for the same blocks of the panels behind, which come next.
  void (*unpack)(const PackedView& w, int64_t first_panel, int panels, int64_t block_begin,
                 int64_t block_end, uint8_t* b);
  // c [rows][tile_panels * 16] = (resume ? c : 0) + x [rows][blocks] * b.
  void (*multiply)(PackedKind kind, const QuantizedBlock* x, int64_t x_stride, int rows,
                   const uint8_t* b, int64_t blocks, bool resume, float* c);
};

extern const Int8Ops kInt8Scalar;
extern const Int8Ops kInt8Avx2;
extern const Int8Ops kInt8Avx512;

}  // namespace kvasir
