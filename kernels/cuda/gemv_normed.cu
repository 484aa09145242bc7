#include "kernels/cuda/gemv_kernel.cuh"

namespace kvasir::cuda {
namespace {

// Of normed rows in a block's shared memory: several blocks find room on a processor.
constexpr int64_t kMostNormedValues = 8192;

}  // namespace

bool FitsNormedGemv(const TensorView& x) {
  return x.rows <= kGemvRows && x.rows * x.cols <= kMostNormedValues && IsWholeQuads(x);
}

Status NormedGemv(Stream stream, const TensorView& x, const GemvNorm& norm,
                  std::span<const GemvTarget> targets) {
  if (x.rows == 0) return Status::Ok();
  KVASIR_CHECK(FitsNormedGemv(x));
  return LaunchTargets<GemvKind::kNormed>(stream, NormedParams(x, norm), targets);
}

}  // namespace kvasir::cuda
