#include "kernels/cuda/gemv_kernel.cuh"

namespace kvasir::cuda {

Status Gemv(Stream stream, const TensorView& x, std::span<const GemvTarget> targets,
            bool accumulate) {
  if (x.rows == 0) return Status::Ok();
  KVASIR_CHECK(IsWholeQuads(x));
  GemvParams p;
  p.x = MatrixOf(x);
  p.accumulate = accumulate;
  return LaunchTargets<GemvKind::kPlain>(stream, p, targets);
}

}  // namespace kvasir::cuda
