// The CPU backend: AVX-512, AVX2+FMA or portable scalar code, chosen once at creation.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "kernels/core/backend.h"
#include "kernels/core/status.h"

namespace kvasir {

enum class Isa : uint8_t { kAuto, kScalar, kAvx2, kAvx512 };

struct CpuOptions {
  // 0 = all cores this process may use.
  int threads = 0;
  // kAuto = the best this machine has, or what the environment variable KVASIR_ISA
  // (scalar|avx2|avx512) forces.
  Isa isa = Isa::kAuto;
};

// kUnimplemented if the machine lacks the instructions asked for.
Result<std::unique_ptr<Backend>> CreateCpuBackend(const CpuOptions& options);

std::string_view IsaName(Isa isa);
std::vector<Isa> SupportedIsas();  // on this machine, best last

}  // namespace kvasir
