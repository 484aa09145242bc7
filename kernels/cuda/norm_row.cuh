// A row's norm, as the norm kernel and the products of normed rows compute it: the same bits.
//
// One pass for the sum of squares (kLayer: one for the mean before), one to hand out; the row comes
// from the first cache after the first pass. Rows of up to kWarpNormWidth values (QK-norm, small
// models) are a warp's, wider ones a block's of kNormThreads threads.
#pragma once

#include "kernels/cuda/rows.cuh"

namespace kvasir::cuda {

inline constexpr int kNormThreads = 128;
inline constexpr int64_t kWarpNormWidth = 1024;
// Of shared memory, from its begin, where a block sums.
inline constexpr size_t kNormSharedBytes = kNormThreads / 32 * sizeof(float);

struct RowNormParams {
  Global<const float> weight = nullptr, bias = nullptr;  // [width]; bias may be null
  int64_t width = 0;
  float eps = 0;
  bool layer = false;
  bool aligned = false;  // rows, weight and bias are whole quads at multiples of 16 bytes
};

// Sum over the threads of a row.
template <bool kBlock>
__device__ __forceinline__ float RowSum(float value) {
  value = WarpSum(value);
  if constexpr (kBlock) {
    const Shared<float> sums = SharedAt<float>(0);
    SyncBlock();  // an earlier sum has been read
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    SyncBlock();
    value = 0;
    for (int i = 0; i < kNormThreads / 32; ++i) value += sums[i];
  }
  return value;
}

// each(quad, values) for the quads of the normed row that are this thread's. All threads of the
// warp or block come here.
template <bool kBlock, typename Each>
__device__ __forceinline__ void NormRow(const RowNormParams& p, Global<const float> x,
                                        const Each& each) {
  constexpr int kThreads = kBlock ? kNormThreads : 32;
  const int thread = static_cast<int>(threadIdx.x) % kThreads;
  const int64_t quads = QuadsOf(p.width);
  const float count = static_cast<float>(p.width);
  float mean = 0;
  if (p.layer) {
    for (int64_t i = thread; i < quads; i += kThreads) {
      const Vec4 v = LoadQuad(x, p.width, p.aligned, i);
      mean += (v.x + v.y) + (v.z + v.w);
    }
    mean = RowSum<kBlock>(mean) / count;
  }
  float squares = 0;
  for (int64_t i = thread; i < quads; i += kThreads) {
    const Vec4 v = LoadQuad(x, p.width, p.aligned, i);
    const float values[4] = {v.x, v.y, v.z, v.w};
    for (int e = 0; e < 4; ++e) {
      const float d = 4 * i + e < p.width ? values[e] - mean : 0.0f;
      squares = Fma(d, d, squares);
    }
  }
  const float scale = 1.0f / Sqrt(RowSum<kBlock>(squares) / count + p.eps);
  for (int64_t i = thread; i < quads; i += kThreads) {
    const Vec4 v = LoadQuad(x, p.width, p.aligned, i);
    const Vec4 w = LoadQuad(p.weight, p.width, p.aligned, i);
    Vec4 b = {0, 0, 0, 0};
    if (p.bias != nullptr) b = LoadQuad(p.bias, p.width, p.aligned, i);
    each(i, Vec4{Fma((v.x - mean) * scale, w.x, b.x), Fma((v.y - mean) * scale, w.y, b.y),
                 Fma((v.z - mean) * scale, w.z, b.z), Fma((v.w - mean) * scale, w.w, b.w)});
  }
}

inline bool IsQuadAligned(const float* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

}  // namespace kvasir::cuda
