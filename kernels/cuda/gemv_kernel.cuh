// A warp computes a few outputs of up to eight rows. Lanes own inputs as weight_layout.h says; each
// adds its products in ascending order of chunks and slices, then the lanes' sums are added by
// shuffles: a row's bits depend neither on the rows beside it nor on how many there are, nor on
// which outputs a warp takes.
//
// Eight loads of 16 bytes a lane are under way before the first is used, twelve of weights whose
// scales are as many again. Activations come from the first cache, normed ones from shared memory,
// where every block norms them for itself.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/for_format.h"
#include "kernels/cuda/gemv.cuh"
#include "kernels/cuda/norm_row.cuh"
#include "kernels/cuda/weight_decode.cuh"

namespace kvasir::cuda {

enum class GemvKind : uint8_t {
  kPlain,
  kNormed,  // of normed rows
  kGated,   // of normed rows, half of a warp's outputs the gate's and half the same ones' of up
};

inline constexpr int kGemvThreads = kNormThreads;
inline constexpr int kGemvWarps = kGemvThreads / 32;
inline constexpr int kMostTargets = 3;  // query, key, value

struct TargetParams {
  WeightPlanes weight;
  Matrix out;
  Global<const float> bias = nullptr;
  unsigned first_block = UINT32_MAX;  // of blockIdx.x; UINT32_MAX: no target
};

struct GemvParams {
  Matrix x;
  TargetParams targets[kMostTargets];
  bool accumulate = false;
  RowNormParams norm;
  ActivationKind activation = ActivationKind::kSilu;
};

// Outputs a warp: with 4-bit weights and one row, activations would otherwise be most of what is
// read from the cache.
template <WeightFormat kFormat, int kRows>
constexpr int kOutputs = BitsOf(kFormat) == 4 && kRows == 1 ? 4 : 2;

// Chunks of an output under way at once. What Q4_K keeps beside its quants fills the registers.
template <WeightFormat kFormat, int kRows>
constexpr int kChunksAhead =
    (kFormat == WeightFormat::kQ4_K && kRows > 1 ? 4 : 8) / kOutputs<kFormat, kRows>;

__device__ __forceinline__ float Dot(const Vec4& x, const float (&w)[4], float to) {
  return Fma(x.w, w[3], Fma(x.z, w[2], Fma(x.y, w[1], Fma(x.x, w[0], to))));
}

// A slice's weights as products take them. Those of 4 bits are scaled after they are summed: with
// one row, unpacking would otherwise take longer than reading.
template <WeightFormat kFormat, int kSlices>
class SliceWeights {
 public:
  __device__ __forceinline__ void Decode(const LaneWeights<kFormat, kSlices>& from, int slice) {
    if constexpr (kOpened) {
      kept_ = from.Open(slice);
    } else {
      from.Decode(slice, kept_);
    }
  }
  // to + x * weights.
  __device__ __forceinline__ float AddTo(float to, const Vec4& x) const {
    if constexpr (!kOpened) {
      return Dot(x, kept_, to);
    } else {
      const float sum = Fma(Dot(x, kept_.quants, 0.0f), kept_.scale, to);
      if constexpr (!Lane::kHasMinimum) return sum;
      return Fma((x.x + x.y) + (x.z + x.w), kept_.minimum, sum);
    }
  }

 private:
  using Lane = LaneWeights<kFormat, kSlices>;
  static constexpr bool kOpened = BitsOf(kFormat) == 4;
  std::conditional_t<kOpened, typename Lane::Slice, float[4]> kept_;
};

// The rows of a block, as the products read them.
template <GemvKind kKind>
struct GemvRows {
  Matrix x;
  int64_t first;              // of x
  int count;                  // at most the kernel's
  Shared<float> normed = {};  // [count][x.cols]

  __device__ __forceinline__ Vec4 At(int row, int64_t input) const {
    if (input >= x.cols) return {0, 0, 0, 0};
    if constexpr (kKind == GemvKind::kPlain) {
      return LoadAs<Vec4>(x.data + ((first + row) * x.stride + input));
    } else {
      return LoadShared<Vec4>(normed + (row * x.cols + input));
    }
  }

  // All threads of the block; one row of them all is soonest done by all.
  template <int kRows>
  __device__ __forceinline__ void Norm(const RowNormParams& p) {
    normed = SharedAt<float>(kNormSharedBytes);
    if (kRows == 1 || p.width > kWarpNormWidth) {
      for (int row = 0; row < count; ++row) NormOne<true>(p, row);
    } else {
      const int warp = static_cast<int>(threadIdx.x) / 32;
      for (int row = warp; row < count; row += kGemvWarps) NormOne<false>(p, row);
    }
    SyncBlock();
  }

 private:
  template <bool kBlock>
  __device__ __forceinline__ void NormOne(const RowNormParams& p, int row) const {
    NormRow<kBlock>(p, x.data + (first + row) * x.stride, [&](int64_t quad, const Vec4& y) {
      StoreShared(normed + (row * x.cols + 4 * quad), y);
    });
  }
};

// A warp's outputs: sums of this lane, and the chunks of their weights that are under way.
template <WeightFormat kFormat, int kSlices, int kRows, GemvKind kKind>
struct GemvWarp {
  static constexpr int kOut = kOutputs<kFormat, kRows>;
  static constexpr int kAhead = kChunksAhead<kFormat, kRows>;
  // Outputs of a matrix.
  static constexpr int kOfEach = kKind == GemvKind::kGated ? kOut / 2 : kOut;

  int lane;
  int64_t first_output;
  float sum[kOut][kRows];
  LaneWeights<kFormat, kSlices> weights[kAhead][kOut];

  // Outputs behind the last are the last again.
  __device__ __forceinline__ void Load(const WeightPlanes& own, const WeightPlanes& up, int begin) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int chunk = begin + i < own.chunks ? begin + i : begin;
#pragma unroll
      for (int o = 0; o < kOut; ++o) {
        const int64_t wanted = first_output + o % kOfEach;
        const int64_t output = wanted < own.n ? wanted : own.n - 1;
        weights[i][o].Load(o < kOfEach ? own : up, output, chunk, lane);
      }
    }
  }

  __device__ __forceinline__ void Add(const GemvRows<kKind>& rows, int chunks, int begin) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i >= chunks) break;
#pragma unroll
      for (int s = 0; s < kSlices; ++s) {
        SliceWeights<kFormat, kSlices> w[kOut];
#pragma unroll
        for (int o = 0; o < kOut; ++o) w[o].Decode(weights[i][o], s);
        const int64_t input =
            int64_t{begin + i} * 128 * kSlices + FirstInput(kFormat, kSlices, lane, s);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r >= rows.count) break;
          const Vec4 x = rows.At(r, input);
#pragma unroll
          for (int o = 0; o < kOut; ++o) sum[o][r] = w[o].AddTo(sum[o][r], x);
        }
      }
    }
  }

  // The whole warp; its first lane writes.
  __device__ __forceinline__ void Store(const GemvParams& p, const TargetParams& target,
                                        const GemvRows<kKind>& rows) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows.count) break;
#pragma unroll
      for (int o = 0; o < kOfEach; ++o) {
        float value = WarpSum(sum[o][r]);
        if constexpr (kKind == GemvKind::kGated) {
          value = Active(p.activation, value) * WarpSum(sum[o + kOfEach][r]);
        }
        const int64_t output = first_output + o;
        if (lane != 0 || output >= target.weight.n) continue;
        const Global<float> to = target.out.data + ((rows.first + r) * target.out.stride + output);
        if (p.accumulate) value += to[0];
        to[0] = target.bias != nullptr ? value + target.bias[output] : value;
      }
    }
  }
};

// Blocks on a processor, for whom the compiler shall leave registers. 0 = as many as it likes:
// where it would spill a few for the sake of one more, they are named.
template <WeightFormat kFormat, int kSlices, int kRows, GemvKind kKind>
constexpr int LeastBlocks() {
  if (kRows > 1 || (BitsOf(kFormat) == 4 && kSlices > 1)) return 2;
  return kKind == GemvKind::kGated && (IsDense(kFormat) || kSlices == 1) ? 4 : 0;
}

__device__ __forceinline__ TargetParams TargetOf(const GemvParams& p) {
  TargetParams target = p.targets[0];
#pragma unroll
  for (int i = 1; i < kMostTargets; ++i) {
    if (blockIdx.x >= p.targets[i].first_block) target = p.targets[i];
  }
  return target;
}

template <WeightFormat kFormat, int kSlices, int kRows, GemvKind kKind>
__global__ void __launch_bounds__(kGemvThreads, LeastBlocks<kFormat, kSlices, kRows, kKind>())
    GemvKernel(GemvParams p) {
  LetNextBegin();
  using Warp = GemvWarp<kFormat, kSlices, kRows, kKind>;
  const TargetParams target = kKind == GemvKind::kGated ? p.targets[0] : TargetOf(p);
  const WeightPlanes& up = p.targets[1].weight;  // of kGated
  const int64_t index = int64_t{blockIdx.x - target.first_block} * kGemvWarps + threadIdx.x / 32;
  Warp warp;
  warp.lane = static_cast<int>(threadIdx.x) % 32;
  warp.first_output = index * Warp::kOfEach;
#pragma unroll
  for (int o = 0; o < Warp::kOut; ++o) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) warp.sum[o][r] = 0.0f;
  }
  warp.Load(target.weight, up, 0);  // weights are constant: they need not wait
  AwaitEarlierKernels();
  GemvRows<kKind> rows;
  rows.x = p.x;
  rows.first = int64_t{blockIdx.y} * kRows;
  rows.count = static_cast<int>(p.x.rows - rows.first < kRows ? p.x.rows - rows.first : kRows);
  if constexpr (kKind != GemvKind::kPlain) rows.template Norm<kRows>(p.norm);
  for (int begin = 0;;) {
    warp.Add(rows, target.weight.chunks, begin);
    begin += Warp::kAhead;
    if (begin >= target.weight.chunks) break;
    warp.Load(target.weight, up, begin);
  }
  warp.Store(p, target, rows);
}

// Launches p, whose targets have their planes but not their blocks; all are of one format.
template <WeightFormat kFormat, int kSlices, int kRows, GemvKind kKind>
Status LaunchGemvRows(Stream stream, GemvParams p, int targets) {
  constexpr int64_t kOutputsABlock =
      int64_t{kGemvWarps} * GemvWarp<kFormat, kSlices, kRows, kKind>::kOfEach;
  LaunchShape shape;
  shape.blocks_x = 0;
  for (int i = 0; i < targets; ++i) {
    TargetParams& target = p.targets[i];
    target.first_block = shape.blocks_x;
    shape.blocks_x +=
        static_cast<unsigned>((target.weight.n + kOutputsABlock - 1) / kOutputsABlock);
  }
  shape.blocks_y = static_cast<unsigned>((p.x.rows + kRows - 1) / kRows);
  shape.threads = kGemvThreads;
  if constexpr (kKind != GemvKind::kPlain) {
    shape.shared_bytes =
        kNormSharedBytes + sizeof(float) * static_cast<size_t>(p.x.cols) *
                               static_cast<size_t>(std::min<int64_t>(p.x.rows, kRows));
  }
  return Launch(stream, shape, GemvKernel<kFormat, kSlices, kRows, kKind>, p);
}

template <GemvKind kKind>
Status LaunchGemv(Stream stream, const WeightLayout& layout, const GemvParams& p, int targets) {
  return ForFormat(layout, [&](auto format, auto slices) {
    constexpr WeightFormat kFormat = format.value;
    constexpr int kSlices = slices.value;
    if (p.x.rows == 1) return LaunchGemvRows<kFormat, kSlices, 1, kKind>(stream, p, targets);
    return LaunchGemvRows<kFormat, kSlices, kGemvRows, kKind>(stream, p, targets);
  });
}

inline TargetParams TargetParamsOf(const GemvTarget& target) {
  TargetParams p;
  p.weight = PlanesOf(*target.layout, target.weight);
  p.out = MatrixOf(target.out);
  p.bias = target.bias;
  return p;
}

inline bool LiesAlike(const WeightLayout& a, const WeightLayout& b) {
  return a.format == b.format && a.slices == b.slices;
}

// A launch for each run of targets whose weights lie alike. p without targets.
template <GemvKind kKind>
Status LaunchTargets(Stream stream, GemvParams p, std::span<const GemvTarget> targets) {
  for (size_t begin = 0; begin < targets.size();) {
    const WeightLayout& layout = *targets[begin].layout;
    int count = 0;
    do {
      p.targets[count] = TargetParamsOf(targets[begin]);
      ++count;
      ++begin;
    } while (count < kMostTargets && begin < targets.size() &&
             LiesAlike(*targets[begin].layout, layout));
    KVASIR_RETURN_IF_ERROR(LaunchGemv<kKind>(stream, layout, p, count));
    std::fill(std::begin(p.targets), std::end(p.targets), TargetParams{});
  }
  return Status::Ok();
}

inline GemvParams NormedParams(const TensorView& x, const GemvNorm& norm) {
  GemvParams p;
  p.x = MatrixOf(x);
  p.norm.weight = norm.weight;
  p.norm.bias = norm.bias;
  p.norm.width = x.cols;
  p.norm.eps = norm.eps;
  p.norm.layer = norm.kind == NormKind::kLayer;
  p.norm.aligned = p.x.aligned && IsQuadAligned(norm.weight) && IsQuadAligned(norm.bias);
  return p;
}

}  // namespace kvasir::cuda
