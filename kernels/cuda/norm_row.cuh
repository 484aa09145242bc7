// A row's norm, as the norm kernel and the products of normed rows compute it: the same bits.
//
// One pass for the sum of squares (kLayer: one for the mean before), one to hand out; the row comes
// from the first cache after the first pass. 128 sums are added in one order, be they a block's (a
// row at a time, soon) or four in each lane of a warp (four rows at a time).
#pragma once

#include "kernels/cuda/rows.cuh"

namespace kvasir::cuda {

inline constexpr int kNormThreads = 128;
inline constexpr int kNormWarps = kNormThreads / 32;
// Wider rows are always a block's.
inline constexpr int64_t kWarpNormWidth = 1024;
// Of shared memory, from its begin, where a block sums.
inline constexpr size_t kNormSharedBytes = kNormWarps * sizeof(float);

struct RowNormParams {
  Global<const float> weight = nullptr, bias = nullptr;  // [width]; bias may be null
  int64_t width = 0;
  float eps = 0;
  bool layer = false;
  bool aligned = false;  // rows, weight and bias are whole quads at multiples of 16 bytes
};

// A thread's part of the 128 sums.
template <bool kBlock>
struct RowParts {
  static constexpr int kCount = kBlock ? 1 : kNormWarps;
  float sums[kCount] = {};
};

// visit(part, quad) for the quads that are this thread's.
template <bool kBlock, typename Visit>
__device__ __forceinline__ void ForEachQuad(int64_t quads, const Visit& visit) {
  const int thread = static_cast<int>(threadIdx.x) % (kBlock ? kNormThreads : 32);
  for (int64_t first = thread; first < quads; first += kNormThreads) {
#pragma unroll
    for (int part = 0; part < RowParts<kBlock>::kCount; ++part) {
      if (first + 32 * part < quads) visit(part, first + 32 * part);
    }
  }
}

// Over the warp or block.
template <bool kBlock>
__device__ __forceinline__ float RowSum(const RowParts<kBlock>& parts) {
  float sum = 0;
  if constexpr (kBlock) {
    const Shared<float> sums = SharedAt<float>(0);
    const float own = WarpSum(parts.sums[0]);
    SyncBlock();  // an earlier sum has been read
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = own;
    SyncBlock();
    for (int i = 0; i < kNormWarps; ++i) sum += sums[i];
  } else {
    for (int i = 0; i < kNormWarps; ++i) sum += WarpSum(parts.sums[i]);
  }
  return sum;
}

// each(quad, values) for the quads of the normed row that are this thread's. All threads of the
// warp or block come here.
template <bool kBlock, typename Each>
__device__ __forceinline__ void NormRow(const RowNormParams& p, Global<const float> x,
                                        const Each& each) {
  const int64_t quads = QuadsOf(p.width);
  const float count = static_cast<float>(p.width);
  float mean = 0;
  if (p.layer) {
    RowParts<kBlock> parts;
    ForEachQuad<kBlock>(quads, [&](int part, int64_t i) {
      const Vec4 v = LoadQuad(x, p.width, p.aligned, i);
      parts.sums[part] += (v.x + v.y) + (v.z + v.w);
    });
    mean = RowSum<kBlock>(parts) / count;
  }
  RowParts<kBlock> squares;
  ForEachQuad<kBlock>(quads, [&](int part, int64_t i) {
    const Vec4 v = LoadQuad(x, p.width, p.aligned, i);
    const float values[4] = {v.x, v.y, v.z, v.w};
    for (int e = 0; e < 4; ++e) {
      const float d = 4 * i + e < p.width ? values[e] - mean : 0.0f;
      squares.sums[part] = Fma(d, d, squares.sums[part]);
    }
  });
  const float scale = 1.0f / Sqrt(RowSum<kBlock>(squares) / count + p.eps);
  ForEachQuad<kBlock>(quads, [&](int, int64_t i) {
    const Vec4 v = LoadQuad(x, p.width, p.aligned, i);
    const Vec4 w = LoadQuad(p.weight, p.width, p.aligned, i);
    Vec4 b = {0, 0, 0, 0};
    if (p.bias != nullptr) b = LoadQuad(p.bias, p.width, p.aligned, i);
    each(i, Vec4{Fma((v.x - mean) * scale, w.x, b.x), Fma((v.y - mean) * scale, w.y, b.y),
                 Fma((v.z - mean) * scale, w.z, b.z), Fma((v.w - mean) * scale, w.w, b.w)});
  });
}

inline bool IsQuadAligned(const float* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

}  // namespace kvasir::cuda
