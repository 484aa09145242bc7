// Arithmetic on sizes read from files: overflow is an answer, never a wrap.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace kvasir {

inline std::optional<uint64_t> CheckedAdd(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

inline std::optional<uint64_t> CheckedMultiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// 1 for no factors.
inline std::optional<uint64_t> CheckedProduct(std::span<const int64_t> factors) {
  uint64_t product = 1;
  for (const int64_t factor : factors) {
    const auto next =
        factor < 0 ? std::nullopt : CheckedMultiply(product, static_cast<uint64_t>(factor));
    if (!next) return std::nullopt;
    product = *next;
  }
  return product;
}

}  // namespace kvasir
