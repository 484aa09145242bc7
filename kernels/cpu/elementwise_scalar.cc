// clang-format off: the instruction set first
#include "kernels/cpu/simd_scalar.h"
#include "kernels/cpu/elementwise_kernels.h"
// clang-format on

namespace kvasir {

const ElementwiseOps kElementwiseScalar = kElementwiseTable;

}  // namespace kvasir
