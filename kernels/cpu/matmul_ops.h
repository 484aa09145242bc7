// MatMulOps: the inner loops of matrix products for one instruction set.
//
// A row's sums are the same bits on every path of one table: each weight is the same fp32 value
// and each output lane adds x[k] * w[k] by fused multiply-add (scalar: multiply, then add) in
// ascending k from zero. Plain data and pointers only, so that files of any instruction set may
// include this.
#pragma once

#include <cstdint>

#include "kernels/cpu/packed_weight.h"

namespace kvasir {

struct MatMulOps {
  // `direct` takes up to direct_rows rows and direct_panels panels straight from packed memory.
  int direct_rows;
  int direct_panels;
  // `multiply` takes up to tile_rows rows and exactly tile_panels decoded panels.
  int tile_rows;
  int tile_panels;

  // c [rows][panels * 16] = x [rows][K] (x_stride apart) * panels^T.
  void (*direct)(const PackedView& w, int64_t first_panel, int panels, const float* x,
                 int64_t x_stride, int rows, float* c);
  // b [k_end - k_begin][tile_panels * 16] = inputs k_begin.. of `panels` panels, zeros for the
  // missing ones. k_begin is a multiple of 256.
  void (*decode)(const PackedView& w, int64_t first_panel, int panels, int64_t k_begin,
                 int64_t k_end, float* b);
  // c [rows][tile_panels * 16] = (resume ? c : 0) + x [rows][k] * b [k][tile_panels * 16].
  // Prefetches k cache lines from `ahead` on, which may be any address.
  void (*multiply)(const float* x, int64_t x_stride, int rows, const float* b, int64_t k,
                   bool resume, const uint8_t* ahead, float* c);
  // out [rows][cols] = (accumulate ? out : 0) + (c + bias); bias [cols] or null.
  void (*finish)(const float* c, int64_t c_stride, int rows, int64_t cols, const float* bias,
                 bool accumulate, float* out, int64_t out_stride);
};

extern const MatMulOps kMatMulScalar;
extern const MatMulOps kMatMulAvx2;
extern const MatMulOps kMatMulAvx512;

}  // namespace kvasir
