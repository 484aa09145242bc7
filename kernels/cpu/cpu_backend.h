// The CPU backend: AVX-512, AVX2+FMA or portable scalar code, chosen once at creation.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/core/status.h"

namespace kvasir {

enum class Isa : uint8_t { kAuto, kScalar, kAvx2, kAvx512 };

// The arithmetic of a forward pass.
enum class ComputeType : uint8_t {
  kF32,   // products and sums in fp32, for every type of weight
  kInt8,  // products of quantised weights in 8 bits with exact sums a block of 32 inputs; where the
          // machine multiplies bf16 pairs, products of fp16 and bf16 weights and attention over
          // bf16 pools in bf16 with fp32 sums; everything else in fp32
};

struct CpuOptions {
  // 0 = all cores this process may use.
  int threads = 0;
  // kAuto = the best this machine has, or what the environment variable KVASIR_ISA
  // (scalar|avx2|avx512) forces.
  Isa isa = Isa::kAuto;
  ComputeType compute = ComputeType::kF32;
};

// kUnimplemented if the machine lacks the instructions asked for.
Result<std::unique_ptr<Backend>> CreateCpuBackend(const CpuOptions& options);

std::string_view IsaName(Isa isa);
std::vector<Isa> SupportedIsas();  // on this machine, best last

}  // namespace kvasir
