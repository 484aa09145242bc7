#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/norm_row.cuh"

namespace kvasir::cuda {
namespace {

struct NormParams {
  Matrix x, out;
  RowNormParams norm;
  int64_t groups = 0;                  // a row
  Global<uint16_t> rounded = nullptr;  // or else `out`
  int64_t stride = 0;                  // of `rounded`
};

// A group is a row, or a head's part of it.
template <bool kBlock>
__global__ void __launch_bounds__(kNormThreads) NormKernel(NormParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int64_t group = kBlock ? blockIdx.x : int64_t{blockIdx.x} * kNormWarps + threadIdx.x / 32;
  if (group >= p.x.rows * p.groups) return;  // a whole warp; never a part of a block that sums
  const int64_t row = group / p.groups, begin = group % p.groups * p.norm.width;
  const Global<const float> x = p.x.data + (row * p.x.stride + begin);
  const Global<float> out = p.out.data + (row * p.out.stride + begin);
  NormRow<kBlock>(p.norm, x, [&](int64_t quad, const Vec4& y) {
    StoreQuad(out, p.norm.width, p.norm.aligned, quad, y);
  });
}

template <bool kBlock>
__global__ void __launch_bounds__(kNormThreads) RoundedNormKernel(NormParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int64_t row = kBlock ? blockIdx.x : int64_t{blockIdx.x} * kNormWarps + threadIdx.x / 32;
  if (row >= p.x.rows) return;
  const Global<uint16_t> out = p.rounded + row * p.stride;
  NormRow<kBlock>(p.norm, p.x.data + row * p.x.stride,
                  [&](int64_t quad, const Vec4& y) { StoreBf16Quad(out + 4 * quad, y); });
  constexpr int kThreads = kBlock ? kNormThreads : 32;
  const int64_t behind = QuadsOf(p.norm.width) + static_cast<int>(threadIdx.x) % kThreads;
  for (int64_t quad = behind; quad < p.stride / 4; quad += kThreads) {
    StoreBf16Quad(out + 4 * quad, {0, 0, 0, 0});
  }
}

NormParams ParamsFor(const NormArgs& args) {
  NormParams p;
  p.x = MatrixOf(args.x);
  p.groups = args.x.cols / args.width;
  p.norm.width = args.width;
  p.norm.weight = args.weight;
  p.norm.bias = args.bias;
  p.norm.eps = args.eps;
  p.norm.layer = args.kind == NormKind::kLayer;
  p.norm.aligned =
      p.x.aligned && args.width % 4 == 0 && IsQuadAligned(args.weight) && IsQuadAligned(args.bias);
  return p;
}

Status LaunchNorm(Stream stream, const NormParams& p, void (*warps)(NormParams),
                  void (*blocks)(NormParams)) {
  const int64_t groups = p.x.rows * p.groups;
  if (groups == 0) return Status::Ok();
  LaunchShape shape;
  shape.threads = kNormThreads;
  if (p.norm.width > kWarpNormWidth) {
    shape.blocks_x = static_cast<unsigned>(groups);
    shape.shared_bytes = kNormSharedBytes;
    return Launch(stream, shape, blocks, p);
  }
  shape.blocks_x = static_cast<unsigned>((groups + kNormWarps - 1) / kNormWarps);
  return Launch(stream, shape, warps, p);
}

}  // namespace

Status Norm(Stream stream, const NormArgs& args) {
  NormParams p = ParamsFor(args);
  p.out = MatrixOf(args.out);
  p.norm.aligned = p.norm.aligned && p.out.aligned;
  return LaunchNorm(stream, p, NormKernel<false>, NormKernel<true>);
}

Status NormToBf16(Stream stream, const NormArgs& args, uint16_t* out, int64_t stride) {
  KVASIR_CHECK(args.width == args.x.cols && stride % 4 == 0 && stride >= args.width);
  NormParams p = ParamsFor(args);
  p.rounded = out;
  p.stride = stride;
  return LaunchNorm(stream, p, RoundedNormKernel<false>, RoundedNormKernel<true>);
}

}  // namespace kvasir::cuda
