#include "kernels/cuda/kv_pool.h"

#include <vector>

#include "kernels/core/shape_checks.h"

namespace kvasir::cuda {
namespace {

KvForm FormOf(DType dtype) {
  if (dtype == DType::kF32) return KvForm::kF32;
  return dtype == DType::kBF16 ? KvForm::kBf16 : KvForm::kI8;
}

}  // namespace

Status CudaKvPool::SetKeyBalance(std::span<const float> key_balance, Stream stream) {
  KVASIR_CHECK(key_balance.size() == static_cast<size_t>(layout_.KeyChannels()));
  std::vector<float> both(key_balance.begin(), key_balance.end());
  for (const float balance : key_balance) both.push_back(1.0f / balance);
  const size_t bytes = both.size() * sizeof(float);
  KVASIR_ASSIGN_OR_RETURN(void* memory, AllocateDeviceMemory(bytes));
  balance_ = {static_cast<float*>(memory), FreeDeviceMemory};
  KVASIR_RETURN_IF_ERROR(CopyToDevice(memory, both.data(), bytes, stream));
  return Synchronize(stream);  // other streams may read it next
}

Result<std::unique_ptr<CudaKvPool>> CudaKvPool::Create(const KvLayout& layout, int32_t blocks,
                                                       std::span<const float> key_balance,
                                                       Stream stream) {
  KVASIR_RETURN_IF_ERROR(CheckPoolShape(layout, blocks));
  auto pool = std::make_unique<CudaKvPool>();
  pool->layout_ = layout;
  pool->blocks_ = blocks;
  const KvForm form = FormOf(layout.dtype);
  pool->geometry_ = {layout.kv_heads, layout.head_dim, blocks, form,
                     form != KvForm::kF32 && layout.head_dim % 64 == 0};
  size_t bytes = 0;
  const size_t block = layout.BytesPerBlock() / static_cast<size_t>(layout.layers);
  if (__builtin_mul_overflow(block, static_cast<size_t>(blocks), &pool->layer_bytes_) ||
      __builtin_mul_overflow(pool->layer_bytes_, static_cast<size_t>(layout.layers), &bytes)) {
    return ResourceExhausted("KV pool: larger than the address space");
  }
  KVASIR_ASSIGN_OR_RETURN(void* data, AllocateDeviceMemory(bytes));
  pool->data_ = {static_cast<char*>(data), FreeDeviceMemory};
  if (form == KvForm::kI8 && !key_balance.empty()) {
    KVASIR_RETURN_IF_ERROR(pool->SetKeyBalance(key_balance, stream));
  }
  return pool;
}

}  // namespace kvasir::cuda
