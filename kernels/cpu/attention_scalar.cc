// clang-format off
#include "kernels/cpu/simd_scalar.h"  // the instruction set comes first
#include "kernels/cpu/attention_kernels.h"
// clang-format on

namespace kvasir {

const AttentionOps kAttentionScalar = kAttentionTable;

}  // namespace kvasir
