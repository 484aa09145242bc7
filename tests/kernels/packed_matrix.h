// Packed random matrices of the CPU backend, for tests of its products.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/pack.h"
#include "tests/kernels/random_weights.h"

namespace kvasir {

// With its values as the file means them.
struct PackedMatrix {
  std::unique_ptr<CpuPackedWeight> packed;
  std::vector<float> values;  // [n][k]
  int64_t n, k;
};

inline PackedMatrix PackSource(WeightArena& arena, ThreadPool& threads, DType dtype, int64_t n,
                               int64_t k, const std::vector<uint8_t>& source) {
  auto packed = PackMatrix(arena, threads, dtype, source.data(), n, k);
  KVASIR_CHECK(packed.ok());
  PackedMatrix matrix{std::move(*packed), std::vector<float>(static_cast<size_t>(n * k)), n, k};
  DequantizeRow(dtype, source.data(), matrix.values.size(), matrix.values.data());
  return matrix;
}

inline PackedMatrix RandomMatrix(WeightArena& arena, ThreadPool& threads, DType dtype, int64_t n,
                                 int64_t k, std::mt19937& random) {
  return PackSource(arena, threads, dtype, n, k, RandomWeights(dtype, n, k, random));
}

}  // namespace kvasir
