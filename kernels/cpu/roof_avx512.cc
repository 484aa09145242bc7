#include <immintrin.h>

#include "kernels/cpu/roof_ops.h"

namespace kvasir {
namespace {

// Enough independent sums for two units of up to eight cycles' latency.
constexpr int kSums = 16;

// The instructions are written out because the compiler would put a register move beside each
// three-operand dot product.
#define KVASIR_ROOF_LOOP(INSTRUCTION, OPERATIONS)                                            \
  __m512i sums[kSums];                                                                       \
  _Pragma("GCC unroll 16") for (int i = 0; i < kSums; ++i) sums[i] = _mm512_setzero_si512(); \
  const __m512i a = _mm512_setzero_si512(), b = _mm512_setzero_si512();                      \
  for (int64_t round = 0; round < rounds; ++round) {                                         \
    _Pragma("GCC unroll 16") for (int i = 0; i < kSums; ++i) {                               \
      asm volatile(INSTRUCTION " %2, %1, %0" : "+v"(sums[i]) : "v"(a), "v"(b));              \
    }                                                                                        \
  }                                                                                          \
  return static_cast<double>(rounds) * kSums * (OPERATIONS)

double Fp32(int64_t rounds) { KVASIR_ROOF_LOOP("vfmadd231ps", 2.0 * 16); }
double Bf16(int64_t rounds) { KVASIR_ROOF_LOOP("vdpbf16ps", 2.0 * 32); }
double Int8(int64_t rounds) { KVASIR_ROOF_LOOP("vpdpbusd", 2.0 * 64); }

uint64_t Read(const uint8_t* data, size_t bytes) {
  __m512i sums[8];
  _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) sums[i] = _mm512_setzero_si512();
  for (size_t at = 0; at < bytes; at += 512) {
    _Pragma("GCC unroll 8") for (size_t i = 0; i < 8; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(data + at + 64 * i + 4096), _MM_HINT_T0);
      sums[i] = _mm512_add_epi64(sums[i], _mm512_load_si512(data + at + 64 * i));
    }
  }
  _Pragma("GCC unroll 8") for (int i = 1; i < 8; ++i) sums[0] = _mm512_add_epi64(sums[0], sums[i]);
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(sums[0]));
}

}  // namespace

const RoofOps kRoofAvx512 = {.fp32 = Fp32, .bf16 = Bf16, .int8 = Int8, .read = Read};

}  // namespace kvasir
