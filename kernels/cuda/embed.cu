#include "kernels/cuda/embed.cuh"
#include "kernels/cuda/for_format.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/weight_decode.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kThreads = 128;

template <WeightFormat kFormat, int kSlices>
__global__ void __launch_bounds__(kThreads)
    EmbedKernel(WeightPlanes table, Global<const int32_t> token_ids, float scale, Matrix out) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int64_t row = blockIdx.x, token = token_ids[row];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int chunk = static_cast<int>(threadIdx.x) / 32; chunk < table.chunks;
       chunk += kThreads / 32) {
    LaneWeights<kFormat, kSlices> weights;
    weights.Load(table, token, chunk, lane);
#pragma unroll
    for (int s = 0; s < kSlices; ++s) {
      float w[4];
      weights.Decode(s, w);
      const int64_t input = int64_t{chunk} * 128 * kSlices + FirstInput(kFormat, kSlices, lane, s);
      StoreQuad(out.data + row * out.stride, out.cols, out.aligned, input / 4,
                {w[0] * scale, w[1] * scale, w[2] * scale, w[3] * scale});
    }
  }
}

}  // namespace

Status Embed(Stream stream, const WeightLayout& layout, const void* table, const int32_t* token_ids,
             float scale, const TensorView& out) {
  if (out.rows == 0) return Status::Ok();
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(out.rows);
  shape.threads = kThreads;
  return ForFormat(layout, [&](auto format, auto slices) {
    return Launch(stream, shape, EmbedKernel<format.value, slices.value>, PlanesOf(layout, table),
                  token_ids, scale, MatrixOf(out));
  });
}

}  // namespace kvasir::cuda
