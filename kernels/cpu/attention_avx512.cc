// clang-format off
#include "kernels/cpu/simd_avx512.h"  // the instruction set comes first
#include "kernels/cpu/attention_kernels.h"
// clang-format on

namespace kvasir {

const AttentionOps kAttentionAvx512 = kAttentionTable;
const AttentionOps kAttentionPairsAvx512 = kAttentionPairsTable;

}  // namespace kvasir
