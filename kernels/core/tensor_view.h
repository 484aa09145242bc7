// TensorView: a typed window on backend memory. Non-owning; the row-major last axis is contiguous.
//
// Axis letters (used in every comment): T rows (tokens of a step), S sequences, E width, H query
// heads, G KV heads, D head dim, F feed-forward width, K input width, N output width, L layers,
// P slots a block, V vocabulary.
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"

namespace kvasir {

struct TensorView {
  void* data = nullptr;  // in the memory of the backend that made it
  DType dtype = DType::kF32;
  int64_t rows = 0;        // product of all axes but the last group, e.g. T
  int64_t cols = 0;        // elements a row, e.g. E or H*D
  int64_t row_stride = 0;  // elements from row to row, >= cols

  float* f32() const { return static_cast<float*>(data); }
  float* f32_row(int64_t row) const { return f32() + row * row_stride; }
};

inline TensorView F32View(float* data, int64_t rows, int64_t cols) {
  return {data, DType::kF32, rows, cols, cols};
}

// Rows [first, first + count) of a view.
inline TensorView RowsOf(const TensorView& view, int64_t first, int64_t count) {
  TensorView part = view;
  part.data = static_cast<char*>(view.data) +
              BytesOf(view.dtype, static_cast<size_t>(first * view.row_stride));
  part.rows = count;
  return part;
}

}  // namespace kvasir
