#include <immintrin.h>

#include "kernels/cpu/roof_ops.h"

namespace kvasir {
namespace {

constexpr int kSums = 12;

double Fp32(int64_t rounds) {
  __m256 sums[kSums];
  _Pragma("GCC unroll 12") for (int i = 0; i < kSums; ++i) sums[i] = _mm256_setzero_ps();
  const __m256 a = _mm256_setzero_ps(), b = _mm256_setzero_ps();
  for (int64_t round = 0; round < rounds; ++round) {
    _Pragma("GCC unroll 12") for (int i = 0; i < kSums; ++i) {
      asm volatile("vfmadd231ps %2, %1, %0" : "+x"(sums[i]) : "x"(a), "x"(b));
    }
  }
  return static_cast<double>(rounds) * kSums * 2 * 8;
}

uint64_t Read(const uint8_t* data, size_t bytes) {
  __m256i sums[8];
  _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) sums[i] = _mm256_setzero_si256();
  for (size_t at = 0; at < bytes; at += 256) {
    _mm_prefetch(reinterpret_cast<const char*>(data + at + 4096), _MM_HINT_T0);
    _Pragma("GCC unroll 8") for (size_t i = 0; i < 8; ++i) {
      const auto* const from = reinterpret_cast<const __m256i*>(data + at + 32 * i);
      sums[i] = _mm256_add_epi64(sums[i], _mm256_load_si256(from));
    }
  }
  uint64_t total = 0;
  _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) {
    alignas(32) uint64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums[i]);
    total += lanes[0] + lanes[1] + lanes[2] + lanes[3];
  }
  return total;
}

}  // namespace

const RoofOps kRoofAvx2 = {.fp32 = Fp32, .bf16 = nullptr, .int8 = nullptr, .read = Read};

}  // namespace kvasir
