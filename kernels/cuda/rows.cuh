// Rows of fp32 values as kernels read and write them: four at a time, whole or at the end of a row.
// What is summed in which order depends on the row's width alone, never on how it is aligned.
#pragma once

#include "kernels/core/tensor_view.h"
#include "kernels/cuda/platform.cuh"

namespace kvasir::cuda {

// A view as kernels take it. [rows][cols]
struct Matrix {
  Global<float> data = nullptr;
  int64_t rows = 0, cols = 0, stride = 0;
  bool aligned = false;  // every row begins at a multiple of 16 bytes
};

inline Matrix MatrixOf(const TensorView& view) {
  const bool aligned = reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.row_stride % 4 == 0;
  return {view.f32(), view.rows, view.cols, view.row_stride, aligned};
}

__device__ __forceinline__ int64_t QuadsOf(int64_t cols) { return (cols + 3) / 4; }

// Values 4 * quad ... of a row of `cols`; zeros behind its end.
__device__ __forceinline__ Vec4 LoadQuad(Global<const float> row, int64_t cols, bool aligned,
                                         int64_t quad) {
  const int64_t i = 4 * quad;
  if (aligned && i + 4 <= cols) return LoadAs<Vec4>(row + i);
  Vec4 v = {0, 0, 0, 0};
  if (i < cols) v.x = row[i];
  if (i + 1 < cols) v.y = row[i + 1];
  if (i + 2 < cols) v.z = row[i + 2];
  if (i + 3 < cols) v.w = row[i + 3];
  return v;
}

__device__ __forceinline__ void StoreQuad(Global<float> row, int64_t cols, bool aligned,
                                          int64_t quad, const Vec4& v) {
  const int64_t i = 4 * quad;
  if (aligned && i + 4 <= cols) return StoreAs(row + i, v);
  if (i < cols) row[i] = v.x;
  if (i + 1 < cols) row[i + 1] = v.y;
  if (i + 2 < cols) row[i + 2] = v.z;
  if (i + 3 < cols) row[i + 3] = v.w;
}

// `to` is a multiple of 8 bytes.
__device__ __forceinline__ void StoreBf16Quad(Global<uint16_t> to, const Vec4& v) {
  StoreAs(to, Words2{PackBf16(v.x, v.y), PackBf16(v.z, v.w)});
}

// The warp's sum, the same bits in every lane.
__device__ __forceinline__ float WarpSum(float value) {
  return ReduceWarp(value, [](float a, float b) { return a + b; });
}

}  // namespace kvasir::cuda
