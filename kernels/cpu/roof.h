// What this machine can do at most, measured: the yardstick beside every benchmark.
#pragma once

#include "kernels/core/status.h"

namespace kvasir {

// Operations a second over all threads together, a multiplication and an addition counting two.
// 0 where the machine lacks the instructions.
struct Roof {
  double gflops_fp32 = 0;  // fused multiply-adds of fp32
  double gflops_bf16 = 0;  // vdpbf16ps
  double gops_int8 = 0;    // vpdpbusd
  double dram_gbps = 0;    // reading a set far larger than the caches, 1e9 bytes a second
};

// Takes less than 1.5 s and 192 MiB. kInvalidArgument if threads < 1, kResourceExhausted if the
// memory is not there. Other load on the machine lowers what it finds.
Result<Roof> MeasureRoof(int threads);

}  // namespace kvasir
