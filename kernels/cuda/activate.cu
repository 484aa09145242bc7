#include <type_traits>

#include "kernels/cuda/activate.cuh"
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/rows.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kThreads = 256;

struct PairParams {
  Matrix a, b, out;  // b.data may be null
};

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

// activation(gate) * up.
template <ActivationKind kKind>
__device__ __forceinline__ Vec4 GatedQuad(const PairParams& p, int64_t row, int64_t quad) {
  const Vec4 gate = QuadOf(p.a, row, quad);
  const Vec4 y = {Active<kKind>(gate.x), Active<kKind>(gate.y), Active<kKind>(gate.z),
                  Active<kKind>(gate.w)};
  if (p.b.data == nullptr) return y;
  const Vec4 up = QuadOf(p.b, row, quad);
  return {y.x * up.x, y.y * up.y, y.z * up.z, y.w * up.w};
}

template <ActivationKind kKind>
__global__ void __launch_bounds__(kThreads) ActivateKernel(PairParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  int64_t row, quad;
  if (!QuadOfThread(p.a, &row, &quad)) return;
  StoreQuad(p.out.data + row * p.out.stride, p.out.cols, p.out.aligned, quad,
            GatedQuad<kKind>(p, row, quad));
}

template <ActivationKind kKind>
__global__ void __launch_bounds__(kThreads)
    RoundedActivateKernel(PairParams p, Global<uint16_t> out, int64_t stride) {
  LetNextBegin();
  AwaitEarlierKernels();
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t row = index / (stride / 4), quad = index % (stride / 4);
  if (row >= p.a.rows) return;
  Vec4 y = {0, 0, 0, 0};
  if (quad < QuadsOf(p.a.cols)) y = GatedQuad<kKind>(p, row, quad);
  StoreBf16Quad(out + (row * stride + 4 * quad), y);
}

__global__ void __launch_bounds__(kThreads) AddKernel(PairParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  int64_t row, quad;
  if (!QuadOfThread(p.a, &row, &quad)) return;
  const Vec4 x = QuadOf(p.a, row, quad), y = QuadOf(p.b, row, quad);
  StoreQuad(p.a.data + row * p.a.stride, p.a.cols, p.a.aligned, quad,
            {x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w});
}

LaunchShape ShapeFor(int64_t threads) {
  LaunchShape shape;
  shape.threads = kThreads;
  shape.blocks_x = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  return shape;
}
int64_t QuadsIn(const TensorView& view) { return view.rows * ((view.cols + 3) / 4); }

// body(std::integral_constant of the kind).
template <typename Body>
Status ForKind(ActivationKind kind, const Body& body) {
  using enum ActivationKind;
  if (kind == kSilu) return body(std::integral_constant<ActivationKind, kSilu>{});
  if (kind == kGeluTanh) return body(std::integral_constant<ActivationKind, kGeluTanh>{});
  return body(std::integral_constant<ActivationKind, kGeluErf>{});
}

}  // namespace

Status Activate(Stream stream, ActivationKind kind, const TensorView& gate, const TensorView& up,
                const TensorView& out) {
  if (gate.rows == 0) return Status::Ok();
  const PairParams p = {MatrixOf(gate), MatrixOf(up), MatrixOf(out)};
  return ForKind(kind, [&](auto constant) {
    return Launch(stream, ShapeFor(QuadsIn(gate)), ActivateKernel<constant.value>, p);
  });
}

Status ActivateToBf16(Stream stream, ActivationKind kind, const TensorView& gate,
                      const TensorView& up, uint16_t* out, int64_t stride) {
  if (gate.rows == 0) return Status::Ok();
  const PairParams p = {MatrixOf(gate), MatrixOf(up), {}};
  return ForKind(kind, [&](auto constant) {
    return Launch(stream, ShapeFor(gate.rows * (stride / 4)), RoundedActivateKernel<constant.value>,
                  p, out, stride);
  });
}

Status Add(Stream stream, const TensorView& x, const TensorView& y) {
  if (x.rows == 0) return Status::Ok();
  return Launch(stream, ShapeFor(QuadsIn(x)), AddKernel, PairParams{MatrixOf(x), MatrixOf(y), {}});
}

}  // namespace kvasir::cuda
