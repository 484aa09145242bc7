// What the shared object gives its loader (loader/cuda_loader.cc). Both come from one build.
#include "kernels/cuda/loader/cuda_entry.h"

#define KVASIR_EXPORT extern "C" __attribute__((visibility("default")))

KVASIR_EXPORT int kvasir_cuda_abi() { return kvasir::kCudaAbi; }

KVASIR_EXPORT void kvasir_cuda_create(const kvasir::CudaOptions* options,
                                      kvasir::Result<std::unique_ptr<kvasir::Backend>>* result) {
  *result = kvasir::CreateCudaBackend(*options);
}
