// Bf16Ops: the inner loops of products of 16-bit weights with activations rounded to bf16, by dot
// products of bf16 pairs with fp32 sums, for one instruction set.
//
// A product of two bf16 is exact in fp32. Pairs are added to a row's fp32 sum in ascending order,
// on every path: a row's sums are the same bits on every path of one table. fp16 weights are
// rounded to bf16 on their way into a register. Values below 2^-126 count as zero. Plain data and
// pointers only, so that files of any instruction set may include this.
#pragma once

#include <cstdint>

#include "kernels/cpu/packed_weight.h"

namespace kvasir {

// 32 consecutive inputs of one row of activations: one cache line. Inputs beyond the row are zero.
struct alignas(64) Bf16Block {
  uint32_t pairs[16];  // input 2i in the lower half of word i
};

struct Bf16Ops {
  using Block = Bf16Block;
  static constexpr int64_t kBlockInputs = 32;
  // Of a panel: u32 [16 pairs][16 outputs].
  static constexpr int64_t kMaxUnpackedBlockBytes = 1024;
  static constexpr int64_t kInputBlocks = 18;  // 36 KiB of two panels
  static constexpr bool Takes(PackedKind kind) { return TraitsOf(kind).quant_bits == 16; }

  // `direct` takes up to direct_rows rows and direct_panels panels straight from packed memory.
  int direct_rows;
  int direct_panels;
  // `multiply` takes up to tile_rows rows and exactly tile_panels unpacked panels.
  int tile_rows;
  int tile_panels;

  // x [inputs] -> out [ceil(inputs / 32)].
  void (*round)(const float* x, int64_t inputs, Bf16Block* out);
  // c [rows][panels * 16] = x [rows][ceil(w.inputs / 32)] (x_stride blocks apart) * panels^T.
  void (*direct)(const PackedView& w, int64_t first_panel, int panels, const Bf16Block* x,
                 int64_t x_stride, int rows, float* c);
  // b [block_end - block_begin][tile_panels] unpacked blocks, zeros for the missing panels and for
  // inputs beyond the row. Asks for the same blocks of the panels behind, which come next.
  void (*unpack)(const PackedView& w, int64_t first_panel, int panels, int64_t block_begin,
                 int64_t block_end, uint8_t* b);
  // c [rows][tile_panels * 16] = (resume ? c : 0) + x [rows][blocks] * b.
  void (*multiply)(PackedKind kind, const Bf16Block* x, int64_t x_stride, int rows,
                   const uint8_t* b, int64_t blocks, bool resume, float* c);
};

extern const Bf16Ops kBf16Avx512;

}  // namespace kvasir
