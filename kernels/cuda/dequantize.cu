#include "kernels/cuda/dequantize.cuh"
#include "kernels/cuda/for_format.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/weight_decode.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// A warp a (row, chunk).
template <WeightFormat kFormat, int kSlices>
__global__ void __launch_bounds__(kThreads)
    DequantizeKernel(WeightPlanes weight, int64_t first_row, int64_t rows, Global<uint16_t> out) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int64_t row = warp / weight.chunks;
  const int chunk = static_cast<int>(warp % weight.chunks);
  if (row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  LaneWeights<kFormat, kSlices> weights;
  weights.Load(weight, first_row + row, chunk, lane);
  const Global<uint16_t> to = out + (row * weight.chunks + chunk) * 128 * kSlices;
#pragma unroll
  for (int s = 0; s < kSlices; ++s) {
    float w[4];
    weights.Decode(s, w);
    StoreBf16Quad(to + FirstInput(kFormat, kSlices, lane, s), {w[0], w[1], w[2], w[3]});
  }
}

__global__ void __launch_bounds__(kThreads)
    RoundKernel(Matrix x, Global<uint16_t> out, int64_t stride) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t row = index / (stride / 4), quad = index % (stride / 4);
  if (row >= x.rows) return;
  StoreBf16Quad(out + (row * stride + 4 * quad),
                LoadQuad(x.data + row * x.stride, x.cols, x.aligned, quad));
}

__global__ void __launch_bounds__(kThreads) PadKernel(Matrix x, Global<float> out, int64_t stride) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t row = index / (stride / 4), quad = index % (stride / 4);
  if (row >= x.rows) return;
  StoreAs(out + (row * stride + 4 * quad),
          LoadQuad(x.data + row * x.stride, x.cols, x.aligned, quad));
}

__global__ void __launch_bounds__(kThreads) BiasKernel(Global<const float> bias, Matrix out) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t row = index / out.cols, col = index % out.cols;
  if (row < out.rows) out.data[row * out.stride + col] += bias[col];
}

LaunchShape ShapeFor(int64_t threads) {
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  shape.threads = kThreads;
  return shape;
}

}  // namespace

Status DequantizeToBf16(Stream stream, const WeightLayout& layout, const void* weight,
                        int64_t first_row, int64_t rows, uint16_t* out) {
  if (rows == 0) return Status::Ok();
  const LaunchShape shape = ShapeFor(rows * layout.chunks * 32);
  return ForFormat(layout, [&](auto format, auto slices) {
    return Launch(stream, shape, DequantizeKernel<format.value, slices.value>,
                  PlanesOf(layout, weight), first_row, rows, out);
  });
}

Status RoundToBf16(Stream stream, const TensorView& x, uint16_t* out, int64_t stride) {
  if (x.rows == 0) return Status::Ok();
  return Launch(stream, ShapeFor(x.rows * (stride / 4)), RoundKernel, MatrixOf(x), out, stride);
}

Status PadRows(Stream stream, const TensorView& x, float* out, int64_t stride) {
  if (x.rows == 0) return Status::Ok();
  return Launch(stream, ShapeFor(x.rows * (stride / 4)), PadKernel, MatrixOf(x), out, stride);
}

Status AddBias(Stream stream, const float* bias, const TensorView& out) {
  if (out.rows == 0) return Status::Ok();
  return Launch(stream, ShapeFor(out.rows * out.cols), BiasKernel, bias, MatrixOf(out));
}

}  // namespace kvasir::cuda
