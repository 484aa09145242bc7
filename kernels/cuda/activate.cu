#include "kernels/cuda/activate.cuh"
#include "kernels/cuda/rows.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kThreads = 256;

struct PairParams {
  Matrix a, b, out;  // b.data may be null
};

template <ActivationKind kKind>
__device__ __forceinline__ float Active(float x) {
  if constexpr (kKind == ActivationKind::kSilu) {
    return x / (1.0f + Exp(-x));
  } else if constexpr (kKind == ActivationKind::kGeluTanh) {
    constexpr float kSqrt2OverPi = 0.7978845608028654f;
    const float y = kSqrt2OverPi * Fma(0.044715f * x * x, x, x);
    return x / (1.0f + Exp(-2.0f * y));
  } else {
    constexpr float kSqrtHalf = 0.7071067811865476f;
    return 0.5f * x * Erfc(-x * kSqrtHalf);
  }
}

// The quad of this thread; false = none.
__device__ __forceinline__ bool QuadOfThread(const Matrix& m, int64_t* row, int64_t* quad) {
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t quads = QuadsOf(m.cols);
  *row = index / quads;
  *quad = index % quads;
  return *row < m.rows;
}

__device__ __forceinline__ Vec4 QuadOf(const Matrix& m, int64_t row, int64_t quad) {
  return LoadQuad(m.data + row * m.stride, m.cols, m.aligned, quad);
}

template <ActivationKind kKind>
__global__ void __launch_bounds__(kThreads) ActivateKernel(PairParams p) {
  int64_t row, quad;
  if (!QuadOfThread(p.a, &row, &quad)) return;
  const Vec4 gate = QuadOf(p.a, row, quad);
  Vec4 y = {Active<kKind>(gate.x), Active<kKind>(gate.y), Active<kKind>(gate.z),
            Active<kKind>(gate.w)};
  if (p.b.data != nullptr) {
    const Vec4 up = QuadOf(p.b, row, quad);
    y = {y.x * up.x, y.y * up.y, y.z * up.z, y.w * up.w};
  }
  StoreQuad(p.out.data + row * p.out.stride, p.out.cols, p.out.aligned, quad, y);
}

__global__ void __launch_bounds__(kThreads) AddKernel(PairParams p) {
  int64_t row, quad;
  if (!QuadOfThread(p.a, &row, &quad)) return;
  const Vec4 x = QuadOf(p.a, row, quad), y = QuadOf(p.b, row, quad);
  StoreQuad(p.a.data + row * p.a.stride, p.a.cols, p.a.aligned, quad,
            {x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w});
}

LaunchShape ShapeFor(const TensorView& view) {
  LaunchShape shape;
  shape.threads = kThreads;
  const int64_t quads = view.rows * ((view.cols + 3) / 4);
  shape.blocks_x = static_cast<unsigned>((quads + kThreads - 1) / kThreads);
  return shape;
}

}  // namespace

Status Activate(Stream stream, ActivationKind kind, const TensorView& gate, const TensorView& up,
                const TensorView& out) {
  if (gate.rows == 0) return Status::Ok();
  const PairParams p = {MatrixOf(gate), MatrixOf(up), MatrixOf(out)};
  const LaunchShape shape = ShapeFor(gate);
  if (kind == ActivationKind::kSilu) {
    return Launch(stream, shape, ActivateKernel<ActivationKind::kSilu>, p);
  }
  if (kind == ActivationKind::kGeluTanh) {
    return Launch(stream, shape, ActivateKernel<ActivationKind::kGeluTanh>, p);
  }
  return Launch(stream, shape, ActivateKernel<ActivationKind::kGeluErf>, p);
}

Status Add(Stream stream, const TensorView& x, const TensorView& y) {
  if (x.rows == 0) return Status::Ok();
  return Launch(stream, ShapeFor(x), AddKernel, PairParams{MatrixOf(x), MatrixOf(y), {}});
}

}  // namespace kvasir::cuda
