#include "kernels/cuda/gather.cuh"
#include "kernels/cuda/rows.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    GatherKernel(Matrix x, Global<const int32_t> rows, Matrix out) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int64_t row = blockIdx.x;
  const Global<const float> from = x.data + rows[row] * x.stride;
  for (int64_t quad = threadIdx.x; quad < QuadsOf(x.cols); quad += kThreads) {
    StoreQuad(out.data + row * out.stride, out.cols, out.aligned, quad,
              LoadQuad(from, x.cols, x.aligned, quad));
  }
}

}  // namespace

Status GatherRows(Stream stream, const TensorView& x, const int32_t* rows, const TensorView& out) {
  if (out.rows == 0) return Status::Ok();
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(out.rows);
  shape.threads = kThreads;
  return Launch(stream, shape, GatherKernel, MatrixOf(x), rows, MatrixOf(out));
}

}  // namespace kvasir::cuda
