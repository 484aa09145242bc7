#include "kernels/cuda/gemv_kernel.cuh"

namespace kvasir::cuda {

bool FitsGatedGemv(const WeightLayout& gate, const WeightLayout& up) {
  return LiesAlike(gate, up) && gate.n == up.n && gate.k == up.k;
}

Status GatedGemv(Stream stream, const TensorView& x, const GemvNorm& norm,
                 const GatedGemvArgs& args) {
  if (x.rows == 0) return Status::Ok();
  KVASIR_CHECK(FitsNormedGemv(x));
  GemvParams p = NormedParams(x, norm);
  p.activation = args.activation;
  p.targets[0] = TargetParamsOf({args.layout, args.gate, nullptr, args.out});
  p.targets[1] = TargetParamsOf({args.layout, args.up, nullptr, {}});
  return LaunchGemv<GemvKind::kGated>(stream, *args.layout, p, 1);
}

}  // namespace kvasir::cuda
