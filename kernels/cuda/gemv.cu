// A warp computes a few outputs of up to eight rows. Lanes own inputs as weight_layout.h says; each
// adds its products in ascending order of chunks and slices, then the lanes' sums are added by
// shuffles: a row's bits depend neither on the rows beside it nor on how many there are.
//
// Eight loads of 16 bytes a lane are under way before the first is used, twelve of weights whose
// scales are as many again. Activations come from the first cache.
#include <type_traits>

#include "kernels/cuda/for_format.h"
#include "kernels/cuda/gemv.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/weight_decode.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;

struct GemvParams {
  Matrix x, out;
  WeightPlanes weight;
  Global<const float> bias = nullptr;
  bool accumulate = false;
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

// Of many rows, on a processor; 0 = as many as the compiler likes, for whose sake it would spill
// registers there.
template <int kRows>
constexpr int kLeastBlocks = kRows == 1 ? 0 : 2;

template <WeightFormat kFormat, int kSlices, int kRows>
__global__ void __launch_bounds__(kThreads, kLeastBlocks<kRows>) GemvKernel(GemvParams p) {
  constexpr int kOut = kOutputs<kFormat, kRows>, kAhead = kChunksAhead<kFormat, kRows>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int64_t first_output = warp * kOut, first_row = int64_t{blockIdx.y} * kRows;
  if (first_output >= p.weight.n) return;
  float sum[kOut][kRows] = {};
  for (int begin = 0; begin < p.weight.chunks; begin += kAhead) {
    LaneWeights<kFormat, kSlices> weights[kAhead][kOut];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int chunk = begin + i < p.weight.chunks ? begin + i : begin;
#pragma unroll
      for (int o = 0; o < kOut; ++o) {
        const int64_t output = first_output + o < p.weight.n ? first_output + o : first_output;
        weights[i][o].Load(p.weight, output, chunk, lane);
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i >= p.weight.chunks) break;
#pragma unroll
      for (int s = 0; s < kSlices; ++s) {
        SliceWeights<kFormat, kSlices> w[kOut];
#pragma unroll
        for (int o = 0; o < kOut; ++o) w[o].Decode(weights[i][o], s);
        const int64_t input =
            int64_t{begin + i} * 128 * kSlices + FirstInput(kFormat, kSlices, lane, s);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (first_row + r >= p.x.rows) break;
          Vec4 x = {0, 0, 0, 0};
          if (input < p.x.cols) x = LoadAs<Vec4>(p.x.data + ((first_row + r) * p.x.stride + input));
#pragma unroll
          for (int o = 0; o < kOut; ++o) sum[o][r] = w[o].AddTo(sum[o][r], x);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first_row + r >= p.x.rows) break;
#pragma unroll
    for (int o = 0; o < kOut; ++o) {
      float value = WarpSum(sum[o][r]);
      if (lane != 0 || first_output + o >= p.weight.n) continue;
      const Global<float> to = p.out.data + ((first_row + r) * p.out.stride + first_output + o);
      if (p.accumulate) value += to[0];
      to[0] = p.bias != nullptr ? value + p.bias[first_output + o] : value;
    }
  }
}

template <WeightFormat kFormat, int kSlices, int kRows>
Status LaunchRows(Stream stream, const GemvParams& p) {
  constexpr int64_t kOutputsABlock = int64_t{kWarps} * kOutputs<kFormat, kRows>;
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>((p.weight.n + kOutputsABlock - 1) / kOutputsABlock);
  shape.blocks_y = static_cast<unsigned>((p.x.rows + kRows - 1) / kRows);
  shape.threads = kThreads;
  return Launch(stream, shape, GemvKernel<kFormat, kSlices, kRows>, p);
}

template <WeightFormat kFormat, int kSlices>
Status LaunchSlices(Stream stream, const GemvParams& p) {
  if (p.x.rows == 1) return LaunchRows<kFormat, kSlices, 1>(stream, p);
  return LaunchRows<kFormat, kSlices, kGemvRows>(stream, p);
}

}  // namespace

Status Gemv(Stream stream, const GemvArgs& args) {
  if (args.x.rows == 0) return Status::Ok();
  KVASIR_CHECK(IsWholeQuads(args.x));
  GemvParams p;
  p.x = MatrixOf(args.x);
  p.out = MatrixOf(args.out);
  p.weight = PlanesOf(args.layout, args.weight);
  p.bias = args.bias;
  p.accumulate = args.accumulate;
  return ForFormat(args.layout, [&](auto format, auto slices) {
    return LaunchSlices<format.value, slices.value>(stream, p);
  });
}

}  // namespace kvasir::cuda
