#include "kernels/cuda/kv_pool.h"

#include <string>

namespace kvasir::cuda {

Result<std::unique_ptr<CudaKvPool>> CudaKvPool::Create(const KvLayout& layout, int32_t blocks) {
  constexpr int32_t kMaxHeadDim = 512;
  if (layout.layers <= 0 || layout.kv_heads <= 0 || layout.head_dim <= 0 || blocks <= 0) {
    return InvalidArgument("KV pool: layers, kv_heads, head_dim and blocks must be positive");
  }
  if (layout.head_dim % 2 != 0 || layout.head_dim > kMaxHeadDim) {
    return Unimplemented("KV pool: head_dim " + std::to_string(layout.head_dim) +
                         "; supported are even numbers up to " + std::to_string(kMaxHeadDim));
  }
  if (layout.dtype != DType::kF32 && layout.dtype != DType::kBF16) {
    return Unimplemented("KV pool of " + std::string(TraitsOf(layout.dtype).name) +
                         ": only F32 and BF16 are supported on CUDA");
  }
  auto pool = std::make_unique<CudaKvPool>();
  pool->layout_ = layout;
  pool->blocks_ = blocks;
  const bool bf16 = layout.dtype == DType::kBF16;
  pool->geometry_ = {layout.kv_heads, layout.head_dim, blocks, bf16,
                     bf16 && layout.head_dim % 64 == 0};
  size_t bytes = 0;
  const size_t block = layout.BytesPerBlock() / static_cast<size_t>(layout.layers);
  if (__builtin_mul_overflow(block, static_cast<size_t>(blocks), &pool->layer_bytes_) ||
      __builtin_mul_overflow(pool->layer_bytes_, static_cast<size_t>(layout.layers), &bytes)) {
    return ResourceExhausted("KV pool: larger than the address space");
  }
  KVASIR_ASSIGN_OR_RETURN(pool->data_, AllocateDeviceMemory(bytes));
  return pool;
}

}  // namespace kvasir::cuda
