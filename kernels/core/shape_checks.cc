#include "kernels/core/shape_checks.h"

#include <string>

namespace kvasir {

Status CheckPoolShape(const KvLayout& layout, int32_t blocks) {
  if (layout.layers <= 0 || layout.kv_heads <= 0 || layout.head_dim <= 0 || blocks <= 0) {
    return InvalidArgument("KV pool: layers, kv_heads, head_dim and blocks must be positive");
  }
  if (layout.head_dim % 2 != 0 || layout.head_dim > kMaxHeadDim) {
    return Unimplemented("KV pool: head_dim " + std::to_string(layout.head_dim) +
                         "; supported are even numbers up to " + std::to_string(kMaxHeadDim));
  }
  if (layout.dtype != DType::kF32 && layout.dtype != DType::kBF16 && layout.dtype != DType::kI8) {
    return Unimplemented("KV pool of " + std::string(TraitsOf(layout.dtype).name) +
                         ": only F32, BF16 and I8 are supported");
  }
  return Status::Ok();
}

Status CheckWeightShape(DType dtype, int64_t n, int64_t k) {
  constexpr int64_t kMaxSide = int64_t{1} << 31;  // keeps every product below 2^63
  const DTypeTraits& traits = TraitsOf(dtype);
  if (dtype == DType::kI8 || dtype == DType::kI4) {
    return InvalidArgument("weights of type " + std::string(traits.name) + " cannot be packed");
  }
  if (n <= 0 || k <= 0 || n > kMaxSide || k > kMaxSide || k % traits.block_elements != 0) {
    return InvalidArgument("a weight of type " + std::string(traits.name) + " cannot have " +
                           std::to_string(n) + " outputs of " + std::to_string(k) +
                           " inputs; inputs come in multiples of " +
                           std::to_string(traits.block_elements));
  }
  return Status::Ok();
}

}  // namespace kvasir
