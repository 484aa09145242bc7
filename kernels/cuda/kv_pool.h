// CudaKvPool: paged KV on the card, and its layout as kernels take it.
//
// Values [L][blocks][2: K, V][G][16 slots][D], fp32, bf16 or int8.
//  - bf16, D a multiple of 64 (rows of whole 128 bytes): 16-byte pieces of a row are swapped: piece
//  c
//    of slot s lies at piece c ^ (s % 8). Blocks can then be copied as they are into shared memory,
//    and eight rows read from one column of pieces touch all of its banks.
//  - int8: behind the values of a block fp32 scales [G][ceil(D/32) of keys, 1 of values][16 slots]
//    (kernels/core/kv_int8.h). D a multiple of 64: values lie in the order in which the lanes of a
//    warp take them, 16 bytes each (KeyPlace, ValuePlace in kv_access.cuh), so that blocks are
//    copied as they are and read from shared memory lane by lane, with no bank conflict.
#pragma once

#include <memory>

#include "kernels/core/backend.h"
#include "kernels/cuda/device.h"

namespace kvasir::cuda {

enum class KvForm : uint8_t { kF32, kBf16, kI8 };

struct KvGeometry {
  int32_t kv_heads = 0, head_dim = 0, blocks = 0;
  KvForm form = KvForm::kF32;
  // Rows of whole 64 values, of bf16 swapped, of int8 in the order of lanes.
  bool arranged = false;

  constexpr int32_t key_scales() const { return KeyScalesOf(head_dim); }
  // Values of one block of one layer, K and V, without scales.
  constexpr int64_t own_values() const { return int64_t{2} * kv_heads * kBlockTokens * head_dim; }
  // And with them, in values: so many apart are blocks.
  constexpr int64_t block_values() const {
    if (form != KvForm::kI8) return own_values();
    return own_values() + int64_t{4} * kv_heads * (key_scales() + 1) * kBlockTokens;
  }
};

// Copies share the memory.
class CudaKvPool final : public KvPool {
 public:
  // key_balance as Backend::CreateKvPool's.
  static Result<std::unique_ptr<CudaKvPool>> Create(const KvLayout& layout, int32_t blocks,
                                                    std::span<const float> key_balance,
                                                    Stream stream);

  const KvGeometry& geometry() const { return geometry_; }
  size_t layer_bytes() const { return layer_bytes_; }
  size_t block_bytes() const { return layer_bytes_ / static_cast<size_t>(blocks_); }
  char* Layer(int32_t layer) const {
    return data_.get() + static_cast<size_t>(layer) * layer_bytes_;
  }
  // What turned queries of a layer are multiplied by, [G][D], and its inverse for keys; null =
  // ones.
  const float* Balance(int32_t layer) const { return BalanceRow(layer); }
  const float* Shares(int32_t layer) const { return BalanceRow(layout_.layers + layer); }

 private:
  const float* BalanceRow(int32_t row) const {
    if (balance_ == nullptr) return nullptr;
    return balance_.get() + int64_t{row} * layout_.kv_heads * layout_.head_dim;
  }
  Status SetKeyBalance(std::span<const float> key_balance, Stream stream);

  KvGeometry geometry_;
  size_t layer_bytes_ = 0;
  std::shared_ptr<char> data_;
  std::shared_ptr<float> balance_;  // [2][L][G][D]
};

}  // namespace kvasir::cuda
