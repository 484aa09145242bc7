// clang-format off
#include "kernels/cpu/simd_scalar.h"  // the instruction set comes first
#include "kernels/cpu/elementwise_kernels.h"
// clang-format on

namespace kvasir {

const ElementwiseOps kElementwiseScalar = kElementwiseTable;

}  // namespace kvasir
