#include <cstring>

#include "kernels/cpu/roof_ops.h"

namespace kvasir {
namespace {

// Multiply, then add, in whatever vectors the baseline has.
double Fp32(int64_t rounds) {
  constexpr int kSums = 32;
  float sums[kSums] = {};
  for (int64_t round = 0; round < rounds; ++round) {
    for (float& sum : sums) sum = sum * 0.5f + 1.0f;
    asm volatile("" ::"g"(sums) : "memory");
  }
  return static_cast<double>(rounds) * kSums * 2;
}

uint64_t Read(const uint8_t* data, size_t bytes) {
  uint64_t sums[8] = {};
  for (size_t at = 0; at < bytes; at += sizeof sums) {
    uint64_t words[8];
    std::memcpy(words, data + at, sizeof words);
    for (int i = 0; i < 8; ++i) sums[i] += words[i];
  }
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

const RoofOps kRoofScalar = {.fp32 = Fp32, .bf16 = nullptr, .int8 = nullptr, .read = Read};

}  // namespace kvasir
