// One pass over a group for its sum of squares (kLayer: one for the mean before), one to write; the
// group comes from the first cache after the first pass. A warp a group of up to 1,024 values
// (QK-norm, small models), a block of eight warps for wider ones.
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/rows.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kBlockThreads = 256;
constexpr int64_t kWarpWidth = 1024;

struct NormParams {
  Matrix x, out;
  int64_t width = 0, groups = 0;  // groups a row
  Global<const float> weight = nullptr, bias = nullptr;
  float eps = 0;
  bool layer = false, aligned = false;
};

// Sum over the threads of a group: one warp, or the whole block through shared memory.
template <bool kBlock>
__device__ __forceinline__ float GroupSum(float value) {
  value = WarpSum(value);
  if constexpr (kBlock) {
    constexpr int kWarps = kBlockThreads / 32;
    const Shared<float> sums = SharedAt<float>(0);
    SyncBlock();  // an earlier sum has been read
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    SyncBlock();
    value = 0;
    for (int i = 0; i < kWarps; ++i) value += sums[i];
  }
  return value;
}

template <bool kBlock>
__global__ void __launch_bounds__(kBlockThreads) NormKernel(NormParams p) {
  const int64_t group =
      kBlock ? blockIdx.x : int64_t{blockIdx.x} * (kBlockThreads / 32) + threadIdx.x / 32;
  if (group >= p.x.rows * p.groups) return;  // a whole warp; never a part of a block that sums
  const int64_t row = group / p.groups, begin = group % p.groups * p.width;
  const Global<const float> x = p.x.data + (row * p.x.stride + begin);
  const Global<float> out = p.out.data + (row * p.out.stride + begin);
  constexpr int kThreads = kBlock ? kBlockThreads : 32;
  const int thread = static_cast<int>(threadIdx.x) % kThreads;
  const int64_t quads = QuadsOf(p.width);
  const float count = static_cast<float>(p.width);
  float mean = 0;
  if (p.layer) {
    for (int64_t i = thread; i < quads; i += kThreads) {
      const Vec4 v = LoadQuad(x, p.width, p.aligned, i);
      mean += (v.x + v.y) + (v.z + v.w);
    }
    mean = GroupSum<kBlock>(mean) / count;
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
  const float scale = 1.0f / Sqrt(GroupSum<kBlock>(squares) / count + p.eps);
  for (int64_t i = thread; i < quads; i += kThreads) {
    const Vec4 v = LoadQuad(x, p.width, p.aligned, i);
    const Vec4 w = LoadQuad(p.weight, p.width, p.aligned, i);
    Vec4 b = {0, 0, 0, 0};
    if (p.bias != nullptr) b = LoadQuad(p.bias, p.width, p.aligned, i);
    const Vec4 y = {Fma((v.x - mean) * scale, w.x, b.x), Fma((v.y - mean) * scale, w.y, b.y),
                    Fma((v.z - mean) * scale, w.z, b.z), Fma((v.w - mean) * scale, w.w, b.w)};
    StoreQuad(out, p.width, p.aligned, i, y);
  }
}

bool Aligned(const float* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

Status Norm(Stream stream, const NormArgs& args) {
  NormParams p;
  p.x = MatrixOf(args.x);
  p.out = MatrixOf(args.out);
  p.width = args.width;
  p.groups = args.x.cols / args.width;
  p.weight = args.weight;
  p.bias = args.bias;
  p.eps = args.eps;
  p.layer = args.kind == NormKind::kLayer;
  p.aligned = p.x.aligned && p.out.aligned && args.width % 4 == 0 && Aligned(args.weight) &&
              Aligned(args.bias);
  const int64_t groups = p.x.rows * p.groups;
  if (groups == 0) return Status::Ok();
  LaunchShape shape;
  shape.threads = kBlockThreads;
  if (args.width > kWarpWidth) {
    shape.blocks_x = static_cast<unsigned>(groups);
    shape.shared_bytes = kBlockThreads / 32 * sizeof(float);
    return Launch(stream, shape, NormKernel<true>, p);
  }
  constexpr int kGroupsABlock = kBlockThreads / 32;
  shape.blocks_x = static_cast<unsigned>((groups + kGroupsABlock - 1) / kGroupsABlock);
  return Launch(stream, shape, NormKernel<false>, p);
}

}  // namespace kvasir::cuda
