// CudaKvPool: paged KV on the card, and its layout as kernels take it.
//
// Values [L][blocks][2: K, V][G][16 slots][D], fp32 or bf16. Where a row of D values is a multiple
// of 128 bytes (bf16, D a multiple of 64) its 16-byte pieces are swapped: piece c of slot s lies at
// piece c ^ (s % 8). Blocks can then be copied as they are into shared memory, and eight rows read
// from one column of pieces touch all of its banks.
#pragma once

#include <memory>

#include "kernels/core/backend.h"
#include "kernels/cuda/device.h"

namespace kvasir::cuda {

struct KvGeometry {
  int32_t kv_heads = 0, head_dim = 0, blocks = 0;
  bool bf16 = false, swizzled = false;

  // Values of one block of one layer, K and V.
  constexpr int64_t block_values() const { return int64_t{2} * kv_heads * kBlockTokens * head_dim; }
};

class CudaKvPool final : public KvPool {
 public:
  static Result<std::unique_ptr<CudaKvPool>> Create(const KvLayout& layout, int32_t blocks);
  ~CudaKvPool() override { FreeDeviceMemory(data_); }

  const KvGeometry& geometry() const { return geometry_; }
  size_t layer_bytes() const { return layer_bytes_; }
  size_t block_bytes() const { return layer_bytes_ / static_cast<size_t>(blocks_); }
  char* Layer(int32_t layer) const {
    return static_cast<char*>(data_) + static_cast<size_t>(layer) * layer_bytes_;
  }

 private:
  KvGeometry geometry_;
  size_t layer_bytes_ = 0;
  void* data_ = nullptr;
};

}  // namespace kvasir::cuda
