// clang-format off: the instruction set first
#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/elementwise_kernels.h"
// clang-format on

namespace kvasir {

const ElementwiseOps kElementwiseAvx2 = kElementwiseTable;

}  // namespace kvasir
