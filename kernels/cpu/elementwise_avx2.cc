// clang-format off
#include "kernels/cpu/simd_avx2.h"  // the instruction set comes first
#include "kernels/cpu/elementwise_kernels.h"
// clang-format on

namespace kvasir {

const ElementwiseOps kElementwiseAvx2 = kElementwiseTable;

}  // namespace kvasir
