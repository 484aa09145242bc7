#include "service/backend_choice.h"

#include <string>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/loader/cuda_loader.h"

namespace kvasir {
namespace {

Isa IsaOf(const std::string& name) {
  if (name == "scalar") return Isa::kScalar;
  if (name == "avx2") return Isa::kAvx2;
  if (name == "avx512") return Isa::kAvx512;
  return Isa::kAuto;
}

}  // namespace

Result<std::unique_ptr<Backend>> MakeCpuBackend(const Config& config) {
  CpuOptions options;
  options.threads = static_cast<int>(config.engine_threads);
  options.isa = IsaOf(config.engine_isa);
  options.compute = config.engine_compute == "f32" ? ComputeType::kF32 : ComputeType::kInt8;
  return CreateCpuBackend(options);
}

Result<std::unique_ptr<Backend>> MakeCudaBackend(const Config& config) {
  CudaOptions options;
  options.compute = config.engine_compute == "f32" ? CudaCompute::kF32 : CudaCompute::kBf16;
  return LoadCudaBackend(options);
}

std::string NameOf(const Backend& backend) {
  std::string name(backend.name());
  const std::string device = backend.device();
  return device.empty() ? name : name.append(" (").append(device).append(")");
}

bool MayBeTheCards(const Status& status) {
  switch (status.code()) {
    case StatusCode::kResourceExhausted:
    case StatusCode::kUnavailable:
    case StatusCode::kUnimplemented:
    case StatusCode::kInternal:
      return true;
    default:
      return false;
  }
}

}  // namespace kvasir
